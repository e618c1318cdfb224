/*
 * peer.c - runs one workload and prints one JSON object, as the peers in other languages do.
 *
 *     peer WORKLOAD NAME=VALUE...
 *
 * On libgc the environment chooses its mode: GC_MARKERS (so many threads mark), PEER_INCREMENTAL=1,
 * GC_MAXIMUM_HEAP_SIZE.
 */
#include "peer.h"
#include <sys/resource.h>

peer_clock the_clock;
static char **arguments;
static int n_arguments;

uint64_t param(const char *name) {
    size_t length = strlen(name);
    for (int i = 0; i < n_arguments; i++)
        if (strncmp(arguments[i], name, length) == 0 && arguments[i][length] == '=')
            return strtoull(arguments[i] + length + 1, NULL, 10);
    fprintf(stderr, "peer: the parameter %s is missing; give it as %s=VALUE\n", name, name);
    exit(2);
}

void peer_long_gap(uint64_t now, uint64_t gap) {
    peer_clock *c = &the_clock;
    while (c->gaps == PEER_GAPS) {
        c->threshold *= 2;
        unsigned kept = 0;
        for (unsigned i = 0; i < c->gaps; i++)
            if (c->gap[i].length >= c->threshold) c->gap[kept++] = c->gap[i];
        c->gaps = kept;
    }
    if (gap >= c->threshold) c->gap[c->gaps++] = (peer_gap){now - c->start, gap};
}

uint64_t control(void) {
    uint64_t end = the_clock.start + param("seconds") * 1000000000u;
    while (tick() < end) continue;
    return 0;
}

static const struct workload {
    const char *name;
    uint64_t (*run)(void);
} workloads[] = {
    {"gcbench", gcbench},      {"binarytrees", binarytrees},   {"lru", lru},
    {"messages", messages},    {"messages-map", messages_map}, {"biglive", biglive},
    {"biglive-ring", biglive}, {"biglive-rewired", biglive},   {"cycles", cycles},
#ifdef PEER_LIBGC
    {"mutate", mutate}, /* its nodes have no owner who could free them */
#endif
    {"control", control},
};

#ifdef PEER_LIBGC
static uint64_t collections, pause_began, pause_max;

/* Called with the collector's lock held, around the time in which the world stands still. */
static void hear(GC_EventType event) {
    if (event == GC_EVENT_PRE_STOP_WORLD) pause_began = peer_now();
    if (event == GC_EVENT_POST_START_WORLD && peer_now() - pause_began > pause_max)
        pause_max = peer_now() - pause_began;
}

static void collector_start(void) {
    GC_INIT();
    if (getenv("GC_MARKERS")) GC_start_mark_threads(); /* else they start with the program's second thread */
    GC_start_performance_measurement();
    GC_set_on_collection_event(hear);
    if (getenv("PEER_INCREMENTAL")) GC_enable_incremental();
}

static void collector_report(void) {
    collections = GC_get_gc_no();
    printf(",\"collections\":%llu,\"pause_max_us\":%.3f,\"allocated_bytes\":%zu", (unsigned long long)collections,
           (double)pause_max / 1e3, GC_get_total_bytes());
    /* What it measures is full collections with the world stopped; an incremental one it does not measure. */
    if (!getenv("PEER_INCREMENTAL")) printf(",\"gc_cpu_s\":%.3f", (double)GC_get_full_gc_total_time() / 1e3);
    unsigned v = GC_get_version();
    printf(",\"version\":\"libgc %u.%u.%u\"", v >> 16, v >> 8 & 255, v & 255);
}
#else
static void collector_start(void) {}
static void collector_report(void) { printf(",\"gc_cpu_s\":0,\"collections\":0"); }
#endif

/* The greatest resident size since the program began: VmHWM, which, unlike ru_maxrss, does not remember who started it.
 */
static unsigned long long peak_rss(void) {
    FILE *f = fopen("/proc/self/status", "r");
    char line[256];
    unsigned long long kib = 0;
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "VmHWM: %llu kB", &kib) == 1) break;
    if (f) fclose(f);
    return kib * 1024;
}

static double seconds(struct timeval t) { return (double)t.tv_sec + (double)t.tv_usec / 1e6; }

static void report(uint64_t checksum, uint64_t end) {
    peer_clock *c = &the_clock;
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    printf("{\"checksum\":%llu,\"wall_s\":%.6f,\"cpu_s\":%.6f", (unsigned long long)checksum,
           (double)(end - c->start) / 1e9, seconds(u.ru_utime) + seconds(u.ru_stime));
    printf(",\"peak_rss_bytes\":%llu", peak_rss());
    collector_report();
    printf(",\"stall_histogram\":[");
    const char *comma = "";
    for (unsigned i = 0; i < PEER_BUCKETS; i++) {
        if (!c->bucket[i]) continue;
        unsigned e = i / 16 - 1;
        uint64_t upper = i < 16 ? i : (((uint64_t)(i - e * 16) + 1) << e) - 1;
        printf("%s[%.3f,%llu]", comma, (double)upper / 1e3, (unsigned long long)c->bucket[i]);
        comma = ",";
    }
    printf("],\"run_us\":%.0f,\"gap_threshold_us\":%.0f,\"gaps_us\":[", (double)(c->last - c->start) / 1e3,
           (double)c->threshold / 1e3);
    for (unsigned i = 0; i < c->gaps; i++)
        printf("%s[%.0f,%.1f]", i ? "," : "", (double)c->gap[i].end / 1e3, (double)c->gap[i].length / 1e3);
    printf("]}\n");
}

int main(int argc, char **argv) {
    arguments = argv + 2;
    n_arguments = argc - 2;
    for (size_t i = 0; argc > 1 && i < sizeof workloads / sizeof *workloads; i++) {
        if (strcmp(argv[1], workloads[i].name) != 0) continue;
        the_clock.threshold = PEER_FIRST_THRESHOLD_NS;
        the_clock.start = the_clock.last = peer_now();
        collector_start();
        uint64_t checksum = workloads[i].run();
        report(checksum, tick());
        return 0;
    }
    fprintf(stderr, "peer: name a workload:");
    for (size_t i = 0; i < sizeof workloads / sizeof *workloads; i++) fprintf(stderr, " %s", workloads[i].name);
    fprintf(stderr, "\n");
    return 2;
}
