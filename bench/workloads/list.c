/* list.c - all workloads, in the order in which they are listed and run. */
#include "../bench.h"

extern const bench_workload bench_gcbench, bench_binarytrees, bench_lru, bench_messages, bench_messages_map,
    bench_biglive, bench_biglive_ring, bench_biglive_rewired, bench_cycles, bench_mutate, bench_store, bench_fork,
    bench_fork_freeze, bench_collect, bench_mark, bench_weakrefs, bench_finalizers, bench_longarray, bench_fragments,
    bench_control;

const bench_workload *const bench_workloads[] = {
    &bench_gcbench,      &bench_binarytrees,     &bench_lru,    &bench_messages, &bench_messages_map, &bench_biglive,
    &bench_biglive_ring, &bench_biglive_rewired, &bench_cycles, &bench_mutate,   &bench_store,        &bench_fork,
    &bench_fork_freeze,  &bench_collect,         &bench_mark,   &bench_weakrefs, &bench_finalizers,   &bench_longarray,
    &bench_fragments,    &bench_control,         NULL};
