#!/usr/bin/env bash
# Does the random graph test find bugs? Plants one deliberate mistake at a time into a copy of the library and demands
# that the test fails on it. Exit status 0 only when the unchanged library passes and every mutant is found.
#
#   tests/mutants.sh [--seeds N] [NAME...]      (default: 4 seeds per mutant, all mutants; ten minutes)
#   tests/mutants.sh --apply                    only sees that each edit still changes its file; a second
#
# A mutant is: a name, the collector to run, a file, a sed expression that must change it, and what is wrong with it.
# Mutants of the concurrent collector run with four threads and more seeds: what they break is a race.
set -u
root=$(cd "$(dirname "$0")/.." && pwd)
seeds=4 apply=
case "${1:-}" in
--seeds) seeds=$2; shift 2 ;;
--apply) apply=yes; shift ;;
esac
wanted=" $* "
ops=400000
cc=${CC:-cc}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

mutants=(
"uncounted-store|refcount|include/winnow/fast.h|s/if (value \&\& !takes_over) wn_count_up_(m, value);//|wn_set does not count the new reference"
"kept-overwritten|refcount|include/winnow/fast.h|s/if (old) wn_count_down_(m, old);/(void)old;/|an overwritten reference is never released"
"finalized-twice|refcount|src/collectors/refcount/reclaim.c|s/WN_STATE_FINALIZED_, __ATOMIC_RELAXED) \& WN_STATE_FINALIZED_)/WN_STATE_FINALIZED_, __ATOMIC_RELAXED) \& 0)/|a resurrected object is finalized at its second death"
"no-release|refcount|src/collectors/refcount/reclaim.c|s/if (t->release) wn_run_release(m->heap, t, object);//|release hooks do not run at zero"
"dirty-slot|refcount|src/collectors/refcount/reclaim.c|s/memset(p, 0, slot);//|a reused slot is not cleared"
"stale-weak|refcount|src/engines/weak.c|0,/r->target = NULL;/s///|a weak reference keeps its dead target"
"external-ignored|refcount|src/engines/cycles.h|s/if ((c->counts\[rank\] ||/if ((c->counts[rank] > 1 ||/|the cycle search overlooks a single reference from outside"
"ephemeron-by-key|refcount|src/collectors/refcount/generations.c|s/if (e->value \&\& by_key) visit/if (0 \&\& by_key) visit/|an ephemeron's key does not keep the value"
"ring-cut|refcount|src/engines/weak.c|s/p->next = e->ephemerons->next;/p->next = e->ephemerons;/|a new ephemeron takes the others of its key off the ring"
"left-freed|refcount|src/engines/weak.c|s/bool is_off = !p->key;/bool is_off = true;/|an ephemeron that is left on its ring is freed"
"ring-unpruned|incremental|src/engines/weak.c|s/if (dead(context, p)) {/if (0) {/|dead ephemerons stay on the ring of a key that is alive"
"trial-not-undone|refcount|src/collectors/refcount/young.c|0,/meta\[0\]++;/s//(void)meta;/|a young collection does not restore the counts of garbage"
"young-forgotten|refcount|src/collectors/refcount/young.c|s/if (!(meta\[1\] \& WN_STATE_SCRATCH_)) return;/return;/|what an outside reference reaches is not kept alive"
"half-the-candidates|refcount|src/collectors/refcount/full.c|s/k < 64; k += 8/k < 32; k += 8/|a full collection overlooks every other 512 bytes"
"no-deletion-barrier|concurrent|src/collectors/concurrent/barrier.c|s/if (old) wn_cc_shade_own(m, old);//|an overwritten reference is not shaded"
"born-white|concurrent|src/collectors/concurrent/allocate.c|s/return wn_cc_shades(m) \&\& !wn_cc_of_mutator(m)->grey;/return false;/|what is made while marking goes on is white"
"no-barrier|incremental|include/winnow/fast.h|s/wn_mode_(m, WN_MODE_REMEMBER_) \&\& wn_may_record_(m, holder, slot, value)/0/|a store into an old object is not remembered"
"old-value-unseen|incremental|include/winnow/fast.h|s/return value \&\& !wn_is_young_(m, holder);/return wn_is_young_(m, value) \&\& !wn_is_young_(m, holder);/|while marking goes on only stores of young values are recorded"
"young-value-unseen|incremental|src/collectors/incremental/barrier.c|s/if (young || (white/if ((young \&\& !is_marking(inc)) || (white/|while marking goes on stores of young values are not recorded"
"weak-not-moved|incremental|src/engines/weak.c|/^static void moved/,/^}/s/if (!e) return;/return;/|weak references do not follow an object that moves"
"cards-unread|incremental|include/winnow/fast.h|s/return !__atomic_load_n(meta + 2 + card, __ATOMIC_RELAXED);/return false;/|a store into a long array is not recorded"
"neighbour-lost|concurrent|src/engines/mark.h|s/if (w->next) wn_mark_push(m, w->next);//|the object to be marked next is forgotten at the end of a step"
"queue-lost|incremental|src/engines/mark.h|s/^        wn_mark_push(w->marker, w->marker->queue.*$/        (void)0;/|what waits for its memory is forgotten at the end of a step"
"queue-skipped|incremental|src/engines/mark.h|s/void \*due = places\[q->oldest++ % WN_MARK_QUEUE\];/void *due = places[++q->oldest % WN_MARK_QUEUE];/|when nothing else is left another than the oldest comes out of the queue"
"laid-over|concurrent|src/heap/mesh.c|s/ \& mesh->taken\[i\]) return false;/ \& 0) return false;/|blocks whose objects overlap are laid on the same memory"
"marks-kept|incremental|src/engines/marks.h|s/if (\*h->word != now) \*h->word = now;/(void)now;/|the marks of the last neighbours are not written"
"immortals-white|concurrent|src/collectors/concurrent/cycle.c|s/^    mark_list(w, \&heap->immortals, 0);//|immortal objects are no roots"
"due-white|concurrent|src/collectors/concurrent/cycle.c|s/^    mark_list(w, \&cc->due_finals, cc->due_finals_next);//|objects whose finalizers are due are no roots"
"weak-read-unseen|concurrent|src/collectors/concurrent/barrier.c|s/^        if (!wn_cc_is_marked(target)) {/        if (0) {/|what a weak reference returns is not shaded"
"dead-read|concurrent|src/collectors/concurrent/barrier.c|s/return wn_cc_is_marked(target) ? target : NULL; /return target; /|a weak reference returns what was found dead"
"grey-store|concurrent|src/collectors/concurrent/barrier.c|s/if (value \&\& grey) wn_cc_shade_own(m, value);//|what a grey thread stores is not shaded"
"slice-rest-lost|concurrent|src/collectors/concurrent/mark.c|s/if (\*to < n) add_slice(cc, slice.object, \*to);/(void)0;/|of a long array the first slice alone is scanned"
"assist-slice-lost|concurrent|src/collectors/concurrent/mark.c|s/add_slice(cc, slice.object, \*to);/add_slice(cc, slice.object, slice.next + WN_CC_SLICE);/|behind what an assist has scanned of a long array, as much as a marker takes is passed over"
"assist-kept|concurrent|src/collectors/concurrent/mark.c|s/^    wn_mark_give_all(marker);//|what an assist has found and not scanned is left to nobody"
"keys-unnoted|concurrent|src/collectors/concurrent/mark.c|s/if (WN_UNLIKELY(__atomic_load_n(\&cc->hidden, __ATOMIC_RELAXED))) found_hidden(cc, o);//|keys that are marked while ephemerons are followed are overlooked"
"too-early|concurrent|src/collectors/concurrent/mark.c|s/if (WN_UNLIKELY(!__atomic_load_n(\&cc->barrier_is_up, __ATOMIC_ACQUIRE))) {/if (0) {/|tracing begins before every thread has its barrier on"
"finals-white|concurrent|src/collectors/concurrent/final.c|s/^        wn_cc_mark_root(w, o);//|what a finalizer will see is not kept"
"chain-kept|concurrent|src/collectors/concurrent/final.c|s/if (!wn_cc_is_marked(r)) wn_weak_unchain(e, r);/(void)e;/|weak references that died stay on the chain of a target that is alive"
"buffers-white|concurrent|src/collectors/concurrent/handshake.c|s/^    wn_cc_blacken_buffers(m);//|what is made of memory taken before the stack was scanned is white"
"flush-empty|concurrent|src/collectors/concurrent/handshake.c|s/^    case WN_CC_ASK_FLUSH:.*/    case WN_CC_ASK_FLUSH: break;/|a thread does not hand over what it has shaded"
"blocks-kept|concurrent|src/collectors/concurrent/handshake.c|s/^        wn_drop_blocks(m);//|a thread goes on making objects in blocks that are to be swept"
"swept-again|concurrent|src/collectors/concurrent/sweep.c|s/ \&\& !wn_space_is_swept(space, b)) found/) found/|blocks taken since marking has closed are swept"
"frozen-white|concurrent|src/collectors/concurrent/sweep.c|s/cc->frozen \&\& i < end/0 \&\& i < end/|frozen objects are not marked"
"old-table-unread|incremental|src/engines/weak.c|s/return heap->weak.old ? find_old(\&heap->weak, target) : NULL;/return NULL;/|entries are not found before they have moved into a table that has grown"
)

# A mutant: its `name`, `collector`, `file`, `edit`, and `what` is wrong with it.
take_apart() {
    local rest=${1#*|}
    name=${1%%|*}
    collector=${rest%%|*} rest=${rest#*|}
    file=${rest%%|*} rest=${rest#*|}
    what=${rest##*|} edit=${rest%|*}
}

if [ "$apply" ]; then
    stale=0
    for mutant in "${mutants[@]}"; do
        take_apart "$mutant"
        sed "$edit" "$root/$file" | cmp -s - "$root/$file" || continue
        echo "$name: no longer applies to $file: bring it up to date"
        stale=1
    done
    exit $stale
fi

flags=(-std=gnu11 -O1 -w -D_GNU_SOURCE -DWINNOW_CHECK=0)

compile() { # folder source: its object file, unless there is one already
    local object="$1/$(echo "${2%.c}" | tr / _).o"
    [ -f "$object" ] || "$cc" "${flags[@]}" -I"$1/include" -I"$1/src" -c "$1/$2" -o "$object"
}

build() { # folder: compiles what has no object yet, and links
    local source
    (cd "$1" && find src tests/random_graph.c -name '*.c') | while read -r source; do
        compile "$1" "$source" || exit 1
    done || return 1
    "$cc" "$1"/*.o -lpthread -lm -o "$1/random_graph"
}

try() { # folder collector: true when some seed fails; prints the first complaint
    local seed threads=1 tries=$seeds
    [ "$2" = concurrent ] && threads=4 tries=$((seeds * 10))
    for seed in $(seq "$tries"); do
        if ! WINNOW_COLLECTOR=$2 "$1/random_graph" --seed "$seed" --ops "$ops" --threads $threads --no-shrink --limit 60 >"$1/log" 2>&1; then
            sed -n 's/^random_graph: FAILED: //p' "$1/log" | head -1
            return 0
        fi
    done
    return 1
}

fresh() { # folder: a copy of the sources
    mkdir -p "$1/tests"
    cp -r "$root/include" "$root/src" "$1/"
    cp "$root/tests/random_graph.c" "$1/tests/"
}

base=$work/base
fresh "$base"
build "$base" || { echo "the library does not build"; exit 1; }
for collector in refcount incremental concurrent; do
    if complaint=$(try "$base" "$collector"); then
        echo "the unchanged library fails on $collector: $complaint"
        exit 1
    fi
done
echo "unchanged: passes"

missed=0
for mutant in "${mutants[@]}"; do
    take_apart "$mutant"
    [ "$wanted" = "  " ] || [[ $wanted == *" $name "* ]] || continue
    folder=$work/$name
    fresh "$folder"
    sed -i "$edit" "$folder/$file"
    if cmp -s "$folder/$file" "$root/$file"; then
        echo "$name: no longer applies to $file: bring it up to date"
        missed=$((missed + 1))
        continue
    fi
    case $file in
    *.c) # all other object files are as in the base
        cp "$base"/*.o "$folder"/
        rm "$folder/$(echo "${file%.c}" | tr / _).o" ;;
    esac
    if ! build "$folder"; then
        echo "$name: does not compile: bring it up to date"
        missed=$((missed + 1))
    elif complaint=$(try "$folder" "$collector"); then
        echo "$name: found ($what): $complaint"
    else
        echo "$name: NOT FOUND ($what)"
        missed=$((missed + 1))
    fi
    rm -rf "$folder"
done
[ $missed -eq 0 ] && echo "every mutant was found"
exit $((missed > 0))
