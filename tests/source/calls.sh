#!/usr/bin/env bash
# Reads the library's object files for the rule of docs/design/architecture.md that the #include lines do not show: a
# layer refers only to itself and to layers below it, and a collector to none of another's.
#   calls.sh OBJECT...    each .../LAYER/FILE.o, or .../collectors/COLLECTOR/FILE.o
set -u
layers="platform events heap object mutator engines collectors inspection"
# What may go up: a verification that the option asks for, and the library's own types, known by their addresses.
allowed="wn_verify wn_weakref_type wn_ephemeron_type"
[ $# -gt 20 ] || { echo "only $# object files; is the list whole?"; exit 1; }
for object in "$@"; do
    nm -P "$object" | sed "s|^|$object |"
done | awk -v layers="$layers" -v allowed="$allowed" '
    BEGIN {
        n = split(layers, name, " ")
        for (i = 1; i <= n; i++) rank[name[i]] = i
        split(allowed, list, " ")
        for (i in list) may[list[i]] = 1
    }
    function place(path,  part, i, k) { # its layer; `folder`: of a collector, too
        k = split(path, part, "/")
        for (i = k - 1; i > 0 && !(part[i] in rank); i--);
        folder = part[i] == "collectors" && i < k - 1 ? part[i + 1] : ""
        return part[i]
    }
    $3 == "U" { from[$2] = from[$2] " " $1; next }
    $3 ~ /^[A-Z]$/ { at[$2] = $1; defined++ }
    END {
        if (defined < 100) { print "only " defined " names are defined; is nm right?"; exit 1 }
        for (symbol in from) {
            if (!(symbol in at) || symbol in may) continue
            to = place(at[symbol]); other = folder
            m = split(from[symbol], user, " ")
            for (i = 1; i <= m; i++) {
                layer = place(user[i])
                if (rank[layer] < rank[to]) { print user[i] ": " layer " is below " to " and must not use " symbol; bad = 1 }
                if (folder != "" && other != "" && folder != other) { print user[i] ": uses " symbol " of another collector"; bad = 1 }
            }
        }
        exit bad
    }'
