# How every target of the project is compiled, and the one rule about source lists: they are written out by hand, one
# file per line, and a file on disk that no list names is pointed out.

find_package(Threads REQUIRED)

# A sanitizer instruments everything, so that whatever links the library has the runtime too.
if(WINNOW_SANITIZE)
    add_compile_options(-fsanitize=${WINNOW_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
    add_link_options(-fsanitize=${WINNOW_SANITIZE})
endif()

# Not a sanitizer: the library runs as it is without valgrind, a little slower.
if(WINNOW_VALGRIND)
    if(WINNOW_SANITIZE)
        message(FATAL_ERROR "WINNOW_VALGRIND and WINNOW_SANITIZE do not go together: valgrind does not run what a sanitizer has instrumented.")
    endif()
    include(CheckIncludeFile)
    check_include_file(valgrind/memcheck.h WINNOW_HAS_MEMCHECK_H)
    if(NOT WINNOW_HAS_MEMCHECK_H)
        message(FATAL_ERROR "WINNOW_VALGRIND needs valgrind/memcheck.h: install valgrind (Debian: the package of that name).")
    endif()
    add_compile_definitions(WN_VALGRIND)
endif()

# winnow_compile(TARGET): language and warnings, the same for every target. _GNU_SOURCE is empty, so that a file may say
# `#define _GNU_SOURCE` itself. The warnings of a project that embeds the library come with -Werror at times: they were
# chosen for its sources, and must not stop the build over ours.
function(winnow_compile target)
    set_target_properties(${target} PROPERTIES C_STANDARD 11 C_STANDARD_REQUIRED ON C_EXTENSIONS ON)
    target_compile_definitions(${target} PRIVATE _GNU_SOURCE= WINNOW_CHECK=$<BOOL:${WINNOW_CHECK}>)
    target_compile_options(${target} PRIVATE -Wall -Wextra $<IF:$<BOOL:${WINNOW_WERROR}>,-Werror,-Wno-error> -fno-plt)
    if(WINNOW_LTO)
        set_target_properties(${target} PROPERTIES INTERPROCEDURAL_OPTIMIZATION ON)
    endif()
endfunction()

# winnow_check_listed(FOLDER FILE...): points out C files below FOLDER that the list does not name.
function(winnow_check_listed folder)
    file(GLOB_RECURSE present RELATIVE "${folder}" "${folder}/*.c")
    list(REMOVE_ITEM present ${ARGN})
    foreach(file IN LISTS present)
        message(WARNING "${folder}/${file} is in no source list: add it to the CMakeLists.txt of its folder.")
    endforeach()
endfunction()
