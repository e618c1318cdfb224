#!/usr/bin/env bash
# Cross-compiles for aarch64 and runs the C tests under qemu's emulation of a process, with pages of 4 KiB and some again
# with pages of 64 KiB, as some kernels for it have.   scripts/test-aarch64.sh [ctest argument...]     (14 minutes)
# Debian on x86-64 only: Ubuntu keeps the packages of other processors elsewhere.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh build aarch64
root=$PWD/build-aarch64 target=aarch64-linux-gnu
mkdir -p "$root"/{debs/partial,lists/partial,sysroot}

# The libraries that the tests link with, for the other processor: into our folder, by lists of our own, so that the
# machine's packages stay as they are.
if [ ! -e "$root/sysroot/usr/lib/$target/pkgconfig/jansson.pc" ]; then
    apt=(apt-get -q -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Dir::State::lists="$root/lists"
        -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o APT::Sandbox::User=)
    "${apt[@]}" update
    (cd "$root/debs" && "${apt[@]}" download libcmocka-dev libcmocka0 libjansson-dev libjansson4)
    for package in "$root"/debs/*.deb; do dpkg -x "$package" "$root/sysroot"; done
fi

cat >"$root/toolchain.cmake" <<END
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER $target-gcc)
set(CMAKE_CXX_COMPILER $target-g++)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64)
set(CMAKE_EXE_LINKER_FLAGS_INIT "-Wl,-rpath-link,$root/sysroot/usr/lib/$target")
set(ENV{PKG_CONFIG_LIBDIR} "$root/sysroot/usr/lib/$target/pkgconfig")
set(ENV{PKG_CONFIG_SYSROOT_DIR} "$root/sysroot")
END
[ -f "$root/build.ninja" ] ||
    cmake -G Ninja -S . -B "$root" -DCMAKE_BUILD_TYPE=Release -DCMAKE_TOOLCHAIN_FILE="$root/toolchain.cmake"
cmake --build "$root"

# What this emulator cannot do, or not like a kernel: a clone without a signal at its end (engines), limits of the
# address space and the accounts of memory (client.memory), threads in the child of a process that has some (the others,
# and what forks beside a collector's thread); the rest wants a shell, a compiler or Python on that processor.
export QEMU_LD_PREFIX=/usr/$target QEMU_SET_ENV="LD_LIBRARY_PATH=$root/sysroot/usr/lib/$target"
able='^(space|mesh|weak|counts|client|misuse|incremental|starved|random_graph|objects|graph|embedding|example)'
unable='^(client\.memory\..*|client\.forks\..*concurrent|client\.meshing\..*concurrent|embedding\..*concurrent)$'
ctest --test-dir "$root" -j "$(nproc)" --output-on-failure -R "$able" -E "$unable" "$@"

echo "== pages of 64 KiB"
for collector in refcount incremental concurrent; do
    for topic in allocation sizes arrays large stores finalizers weakrefs identity freeze garbage heaps; do
        QEMU_PAGESIZE=65536 WINNOW_COLLECTOR=$collector qemu-aarch64 "$root/tests/test_client.$topic" >"$root/output" 2>&1 ||
            { cat "$root/output"; echo "failed: $topic on $collector"; exit 1; }
    done
    QEMU_PAGESIZE=65536 WINNOW_COLLECTOR=$collector qemu-aarch64 "$root/tests/test_random_graph" --threads 4 --seed 1 \
        --ops 200000 --limit 200
done
