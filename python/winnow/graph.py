"""Part of the live heap as a Graphviz picture, in the form that Winnow's own heaps are drawn.

    winnow.graph.write("cycle.dot", [an_object], depth=3)        # then: dot -Tsvg cycle.dot > cycle.svg
"""

import gc
import os
import types

_UNINTERESTING = (type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.FrameType)


def _label(o):
    name = type(o).__name__
    try:
        if isinstance(o, (str, bytes, int, float, complex, bool, type(None))):
            text = repr(o)
        elif isinstance(o, (list, tuple, dict, set, frozenset)):
            text = f"{len(o)} items"
        else:
            text = ""
    except Exception:  # a class's own __len__ or __repr__ may do anything
        text = ""
    return name, text if len(text) <= 24 else text[:23] + "…"


def write(file, roots, depth=3, limit=500, atoms=False):
    """Writes what can be reached from the roots in `depth` steps, at most `limit` objects, to a file or its name.

    Modules, classes, functions and frames are left out; numbers and strings too, unless `atoms`. Returns the number of
    objects drawn.
    """
    if isinstance(file, (str, os.PathLike)):
        with open(file, "w", encoding="utf-8") as f:
            return write(f, roots, depth, limit, atoms)
    number, edges = {}, []
    layer = list(roots)[:limit]
    for o in layer:
        number.setdefault(id(o), (len(number), o))
    for _ in range(depth):
        following = []
        for o in layer:
            for r in gc.get_referents(o):
                if issubclass(type(r), _UNINTERESTING) or not (atoms or gc.is_tracked(r) or isinstance(r, (list, tuple, dict))):
                    continue
                if id(r) not in number:
                    if len(number) >= limit:
                        continue
                    number[id(r)] = (len(number), r)
                    following.append(r)
                edges.append((number[id(o)][0], number[id(r)][0]))
        layer = following
    file.write("digraph heap {\n    node [shape=box, fontsize=10];\n")
    for n, o in number.values():
        name, text = _label(o)
        label = "\\n".join(part.replace("\\", "\\\\").replace('"', '\\"') for part in (name, text) if part)
        file.write(f'    o{n} [label="{label}"];\n')
    for a, b in edges:
        file.write(f"    o{a} -> o{b};\n")
    file.write("}\n")
    return len(number)
