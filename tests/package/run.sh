#!/usr/bin/env bash
# run.sh WAY SOURCE BUILD: uses Winnow as another project would, from an empty folder, and runs the client.
#   pkg-config        against the installed package: shared, and wholly static
#   find-package      against the installed package by CMake: Winnow::winnow and Winnow::static
#   add-subdirectory  with the source tree as a part of the client's project
#   valgrind          with memcheck told of the heap's memory: silent over a program without mistakes, not over one with
#   no-cmocka         is configured where the library of the tests is not installed: `make` on a new machine
set -euo pipefail
way=$1 source=$2 build=$3
here=$source/tests/package
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
version=$(sed -n 's/^#define WN_VERSION "\(.*\)"/\1/p' "$source/include/winnow/base.h")

expect() { # command...: runs it, wants the version
    local said
    said=$("$@")
    [ "$said" = "$version" ] || { echo "$1 printed '$said', not '$version'"; exit 1; }
    echo "$1: $said"
}
install_it() {
    cmake --install "$build" --prefix "$work/first" >/dev/null
    mv "$work/first" "$work/prefix" # an installed tree may be moved
}

case $way in
    pkg-config)
        install_it
        PKG_CONFIG_PATH=$(dirname "$(find "$work/prefix" -name winnow.pc)")
        export PKG_CONFIG_PATH
        lib=$(pkg-config --variable=libdir winnow)
        # shellcheck disable=SC2046
        {
            cc -std=gnu11 -Wall -Wextra -Werror "$here/client.c" -o shared $(pkg-config --cflags --libs winnow)
            cc -std=gnu11 -Wall -Wextra -Werror "$here/client.c" -o static -static \
                $(pkg-config --static --cflags --libs winnow)
        }
        LD_LIBRARY_PATH=$lib expect ./shared
        expect ./static
        LD_LIBRARY_PATH=$lib ldd ./shared | grep "$lib/libwinnow.so" >/dev/null || { echo "./shared is not linked to the shared library"; exit 1; }
        ;;
    find-package)
        install_it
        cmake -S "$here/find-package" -B b -G Ninja -DCMAKE_PREFIX_PATH="$work/prefix" -DWANTED="$version" >log || { cat log; exit 1; }
        cmake --build b >log || { cat log; exit 1; }
        expect b/shared
        expect b/static
        ;;
    add-subdirectory)
        # Nothing but the tree may be needed: no jansson, no cmocka, no git.
        cmake -S "$here/add-subdirectory" -B b -G Ninja -DWINNOW_TREE="$source" \
            -DCMAKE_DISABLE_FIND_PACKAGE_PkgConfig=ON >log || { cat log; exit 1; }
        cmake --build b -j 2 >log || { cat log; exit 1; }
        expect b/shared
        expect b/static
        ;;
    no-cmocka)
        # What `make` installs first is enough for it: the tests' library is not among that.
        mkdir known
        cp "$(pkg-config --variable=pcfiledir jansson)/jansson.pc" known
        PKG_CONFIG_PATH="" PKG_CONFIG_LIBDIR=$PWD/known cmake -S "$source" -B b -G Ninja >log 2>&1 || { cat log; exit 1; }
        grep "tests are left out" log >/dev/null || { echo "cmocka was found all the same"; exit 1; }
        ;;
    valgrind)
        # Installed it may be, and unable to run anything: without the debugging symbols of the C library, for one.
        valgrind -q true >/dev/null 2>&1 || { echo "valgrind does not run here"; exit 77; }
        cmake -S "$source" -B b -G Ninja -DWINNOW_VALGRIND=ON -DWINNOW_BUILD_TOOLS=OFF -DWINNOW_BUILD_TESTS=OFF \
            >log || { cat log; exit 1; }
        cmake --build b --target winnow_static >log || { cat log; exit 1; }
        cc -std=gnu11 -Wall -Wextra -Werror -g -I"$source/include" "$here/memcheck.c" b/lib/libwinnow.a -o memcheck -pthread -lm
        memcheck() { # collector, what: prints what valgrind says; its status is 9 after a mistake
            WINNOW_COLLECTOR=$1 valgrind -q --error-exitcode=9 ./memcheck "$2" 2>&1
        }
        for collector in refcount incremental concurrent; do
            memcheck $collector good || { echo "$collector: a mistake where there is none"; exit 1; }
            said=$(memcheck $collector bad) && { echo "$collector: memory that was freed is read, and nobody says so"; exit 1; }
            grep "Invalid read" <<<"$said" >/dev/null || { echo "$collector:"; echo "$said"; exit 1; }
            echo "$collector: good"
        done
        ;;
    *) echo "no way called $way"; exit 2 ;;
esac
