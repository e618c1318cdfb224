# Install rules: libraries, headers, pkg-config file, CMake package, man pages, the command. Every installed file finds
# the others relative to itself, so that a prefix may be moved.
include(CMakePackageConfigHelpers)

if(NOT TARGET winnow)
    return()
endif()
install(TARGETS winnow winnow_static EXPORT WinnowTargets
    LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(FILES "${PROJECT_SOURCE_DIR}/include/winnow.h" DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(DIRECTORY "${PROJECT_SOURCE_DIR}/include/winnow" DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
    FILES_MATCHING PATTERN "*.h")
install(FILES "${PROJECT_SOURCE_DIR}/man/winnow.3" DESTINATION ${CMAKE_INSTALL_MANDIR}/man3)
if(TARGET winnow_command)
    install(TARGETS winnow_command DESTINATION ${CMAKE_INSTALL_BINDIR})
    file(GLOB pages "${PROJECT_SOURCE_DIR}/man/*.1")
    install(FILES ${pages} DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
endif()

# pkg-config: the prefix is found from where the file lies.
file(RELATIVE_PATH WINNOW_PC_PREFIX "/prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/prefix")
configure_file("${CMAKE_CURRENT_LIST_DIR}/winnow.pc.in" "${PROJECT_BINARY_DIR}/winnow.pc" @ONLY)
install(FILES "${PROJECT_BINARY_DIR}/winnow.pc" DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

# CMake: find_package(Winnow) gives Winnow::winnow (shared) and Winnow::static. The interface may change until 1.0,
# so only the same minor version will do.
set(package ${CMAKE_INSTALL_LIBDIR}/cmake/Winnow)
install(EXPORT WinnowTargets NAMESPACE Winnow:: DESTINATION ${package})
configure_package_config_file("${CMAKE_CURRENT_LIST_DIR}/WinnowConfig.cmake.in"
    "${PROJECT_BINARY_DIR}/WinnowConfig.cmake" INSTALL_DESTINATION ${package})
write_basic_package_version_file("${PROJECT_BINARY_DIR}/WinnowConfigVersion.cmake" COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/WinnowConfig.cmake" "${PROJECT_BINARY_DIR}/WinnowConfigVersion.cmake"
    DESTINATION ${package})
