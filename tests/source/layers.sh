#!/usr/bin/env bash
# Reads the sources for the rules of docs/design/architecture.md that a compiler does not see:
#   - a layer includes only itself and layers below it; collectors never include each other;
#   - only platform/ asks which operating system or processor it is compiled for;
#   - what stands on the public interface (objects/, bench/, tools/, examples/) includes nothing internal.
set -u
cd "$1"
layers=(platform events heap object mutator engines collectors inspection)
bad=0
complain() { echo "$*"; bad=1; }

rank() { # of a layer's name; empty when it is none
    local i
    for i in "${!layers[@]}"; do [ "${layers[$i]}" = "$1" ] && echo "$i"; done
}

while IFS=: read -r file line text; do
    included=$(sed -n 's/^ *# *include *["<]\([^">]*\)[">].*/\1/p' <<<"$text")
    to=$(rank "${included%%/*}")
    [ -n "$to" ] || continue
    relative=${file#src/}
    from=$(rank "${relative%%/*}")
    [ -n "$from" ] || continue # src/*.h: shared by all layers
    [ "$to" -le "$from" ] || complain "$file:$line: ${relative%%/*} is below ${included%%/*} and must not include $included"
    case "$relative" in collectors/*/*)
        own=$(cut -d/ -f1-2 <<<"$relative")
        case "$included" in
            collectors/*/*) [ "$(cut -d/ -f1-2 <<<"$included")" = "$own" ] ||
                complain "$file:$line: a collector must not include another's $included; what two need goes to engines/" ;;
        esac ;;
    esac
done < <(grep -rnE '^ *# *include' src --include='*.c' --include='*.h')

while IFS=: read -r file line text; do
    complain "$file:$line: asks for a system or processor outside src/platform/: $text"
done < <(grep -rnE '^ *# *(if|ifdef|ifndef|elif).*(__linux__|__APPLE__|__FreeBSD__|_WIN32|__x86_64__|__i386__|__aarch64__|__arm__|__riscv|__SSE|__AVX|__GLIBC__)' \
    src objects include bench tools --include='*.c' --include='*.h' 2>/dev/null | grep -v '^src/platform/')

while IFS=: read -r file line text; do
    complain "$file:$line: uses the library's insides, not its interface: $text"
done < <(grep -rnE '^ *# *include *["<](\.\./src/|src/|platform/|events/|heap/|object/|mutator/|engines/|collectors/|inspection/)' \
    objects bench tools examples --include='*.c' --include='*.h' 2>/dev/null)
exit $bad
