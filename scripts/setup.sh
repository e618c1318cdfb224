#!/usr/bin/env bash
# Installs what the project needs and this machine lacks, with apt-get; does nothing when all is there.
#   scripts/setup.sh [build] [demo] [test] [compare] [format] [aarch64]     (no argument: all of them but aarch64)
# To add a requirement, add a line to the list of the group that needs it: how to see that it is there, and the Debian
# package that brings it.
set -euo pipefail

# A check is   command NAME | module NAME (pkg-config) | file PATH | links FLAGS (clang can link with them)
#         library NAME (the C compiler can) | python MODULE | headers PYTHON (an extension can be compiled for it)
# A package with a question mark is wanted, not needed: what uses it does without where it cannot be had.
needs_build=(
    "gcc             command gcc"
    "libc6-dev       file /usr/include/stdio.h"
    "make            command make"
    "cmake           command cmake"
    "ninja-build     command ninja"
    "pkg-config      command pkg-config"
    "libjansson-dev  module jansson"
)
needs_demo=(
    "iso-codes       file /usr/share/iso-codes/json/iso_639-3.json"
)
needs_test=(
    "g++             command g++"
    "clang           command clang"
    "clang-runtime   links -fsanitize=address"
    "clang-runtime   links -fsanitize=thread"
    "libcmocka-dev   module cmocka"
    "graphviz        command dot"
    "spin            command spin"
    "binutils        command nm"
    "python3         command python3"
    "python3-venv    python ensurepip"
    "python3-dev     headers python3"
    "chromium?       command chromium"
    "valgrind?       command valgrind"
)
# The peers that `make compare` measures Winnow beside, and what draws its page.
needs_compare=(
    "golang          command go"
    "pypy3           command pypy3"
    "libgc-dev       module bdw-gc"
    "libmimalloc-dev library mimalloc"
    "python3         command python3"
    "python3-venv    python ensurepip"
)
needs_format=(
    "clang-format    command clang-format"
)
# Testing for another processor than the machine's: scripts/test-aarch64.sh.
needs_aarch64=(
    "gcc-aarch64-linux-gnu  command aarch64-linux-gnu-gcc"
    "g++-aarch64-linux-gnu  command aarch64-linux-gnu-g++"
    "qemu-user              command qemu-aarch64"
)

present() { # a check, as words
    case $1 in
        command) command -v "$2" >/dev/null ;;
        module) command -v pkg-config >/dev/null && pkg-config --exists "$2" ;;
        file) [ -e "$2" ] ;;
        library) command -v gcc >/dev/null && echo 'int main(void){return 0;}' | gcc -x c - "-l$2" -o /dev/null 2>/dev/null ;;
        python) command -v python3 >/dev/null && python3 -c "import $2" 2>/dev/null ;;
        headers) command -v "$2" >/dev/null && "$2" -c 'import os, sysconfig as s
raise SystemExit(not os.path.exists(os.path.join(s.get_path("include"), "Python.h")))' 2>/dev/null ;;
        links) command -v clang >/dev/null && echo 'int main(void){return 0;}' | clang "$2" -x c - -o /dev/null 2>/dev/null ;;
    esac
}

# The sanitizers' runtime is a package of its own whose name carries the compiler's version (libclang-rt-14-dev); where
# there is none of that name it is part of libclang-common-N-dev.
clang_runtime_package() {
    local version
    version=$(apt-cache depends clang 2>/dev/null | sed -n 's/.*Depends: clang-\([0-9]*\)$/\1/p' | head -n 1)
    if command -v clang >/dev/null; then
        version=$(clang -dumpversion)
        version=${version%%.*}
    fi
    [ -n "$version" ] || { echo clang; return; }
    if apt-cache show "libclang-rt-$version-dev" >/dev/null 2>&1; then
        echo "libclang-rt-$version-dev"
    else
        echo "libclang-common-$version-dev"
    fi
}

# Whether apt-get could install a package now.
offered() { [ -n "$(apt-cache policy "$1" 2>/dev/null | sed -n 's/^  Candidate: //p' | grep -v '(none)')" ]; }

look() { # groups...: sets `missing` to what those groups need, and `wanted` to what they want, and is not there
    local group line package check what
    missing=() wanted=()
    for group in "$@"; do
        declare -p "needs_$group" >/dev/null 2>&1 || { echo "setup: no group called '$group'" >&2; exit 2; }
        local -n list="needs_$group"
        for line in "${list[@]}"; do
            read -r package check what <<<"$line"
            present "$check" "$what" && continue
            if [[ $package == *\? ]]; then wanted+=("${package%\?}"); else missing+=("$package"); fi
        done
    done
    [ ${#missing[@]} -eq 0 ] || readarray -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
}

[ $# -gt 0 ] || set -- build demo test compare format
look "$@"
if [ ${#missing[@]} -eq 0 ]; then
    # Nothing that is needed: what is only wanted is worth an attempt, and no failure.
    available=()
    for package in "${wanted[@]}"; do offered "$package" && available+=("$package"); done
    [ ${#available[@]} -gt 0 ] && [ "$(id -u)" -eq 0 ] || exit 0
fi

if ! command -v apt-get >/dev/null; then
    echo "setup: missing: ${missing[*]} (Debian's names)." >&2
    echo "setup: this is no Debian or Ubuntu; install their counterparts with your package manager, then run it again." >&2
    exit 1
fi
if [ "$(id -u)" -eq 0 ]; then
    as_root=()
elif command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
    as_root=(sudo)
else
    echo "setup: missing: ${missing[*]}" >&2
    echo "setup: neither root nor sudo here; have an administrator run: apt-get install ${missing[*]/clang-runtime/$(clang_runtime_package)}" >&2
    exit 1
fi

apt() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 "$@"; }
echo "setup: installing with apt-get: ${missing[*]} ${wanted[*]}"
apt update || echo "setup: apt-get update failed; trying with the package lists there are" >&2
readarray -t packages < <(for p in "${missing[@]}"; do [ "$p" = clang-runtime ] && clang_runtime_package || echo "$p"; done)
[ ${#packages[@]} -eq 0 ] || apt install --no-install-recommends "${packages[@]}"
for package in "${wanted[@]}"; do
    offered "$package" && apt install --no-install-recommends "$package" ||
        echo "setup: $package cannot be had here; what uses it will be skipped" >&2
done
hash -r
look "$@"
[ ${#missing[@]} -eq 0 ] || { echo "setup: installed, but still not usable: ${missing[*]} (see the checks in $0)" >&2; exit 1; }
echo "setup: done"
