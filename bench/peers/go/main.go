// Command peer runs one of Winnow's workloads in Go, on Go's collector.
//
//	peer WORKLOAD NAME=VALUE...
//
// It prints one JSON object: the checksum, which must be that of every other system, times, the collector's own figures, and
// the stalls that the program saw. The parameters are those of `winnow bench --list`; all of a workload's are required.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"syscall"
	"time"
)

type params map[string]int

// get ends the program when the parameter is missing: a default here could differ from the other systems'.
func (p params) get(name string) int {
	v, ok := p[name]
	if !ok {
		fatal("the parameter %s is missing; give it as %s=VALUE", name, name)
	}
	return v
}

func fatal(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "peer: "+format+"\n", args...)
	os.Exit(2)
}

var workloads = map[string]func(params) uint64{
	"gcbench":         gcbench,
	"binarytrees":     binaryTrees,
	"lru":             lru,
	"lru-chains":      lruChains,
	"messages":        messagesRing,
	"messages-map":    messagesMap,
	"biglive":         bigLive,
	"biglive-ring":    bigLive,
	"biglive-rewired": bigLive,
	"cycles":          cycles,
	"mutate":          mutate,
	"store":           store,
	"control":         control,
}

func main() {
	if len(os.Args) < 2 {
		fatal("name a workload")
	}
	run, ok := workloads[os.Args[1]]
	if !ok {
		fatal("there is no workload %q", os.Args[1])
	}
	p := params{}
	for _, arg := range os.Args[2:] {
		name, value, _ := strings.Cut(arg, "=")
		n, err := strconv.Atoi(value)
		if err != nil {
			fatal("%s: write parameters as NAME=NUMBER", arg)
		}
		p[name] = n
	}
	start := time.Now()
	clock.start()
	checksum := run(p)
	clock.stop()
	wall := time.Since(start).Seconds()
	report(checksum, wall)
}

func cpuSeconds() float64 {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return float64(u.Utime.Sec+u.Stime.Sec) + float64(u.Utime.Usec+u.Stime.Usec)/1e6
}

// peakRSS is the greatest resident size since the program began: VmHWM, which, unlike ru_maxrss, forgets who started it.
func peakRSS() (bytes int) {
	status, _ := os.ReadFile("/proc/self/status")
	_, line, _ := strings.Cut(string(status), "VmHWM:")
	fmt.Sscan(line, &bytes)
	return bytes * 1024
}

func report(checksum uint64, wall float64) {
	cpu := cpuSeconds()
	gc := []metrics.Sample{{Name: "/cpu/classes/gc/total:cpu-seconds"}, {Name: "/cpu/classes/gc/mark/idle:cpu-seconds"}}
	metrics.Read(gc)
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	var pauses debug.GCStats
	pauses.PauseQuantiles = make([]time.Duration, 3)
	debug.ReadGCStats(&pauses)
	result := map[string]any{
		"checksum":        checksum,
		"wall_s":          wall,
		"cpu_s":           cpu,
		"peak_rss_bytes":  peakRSS(),
		"collections":     stats.NumGC,
		"allocated_bytes": stats.TotalAlloc,
		"pause_max_us":    float64(pauses.PauseQuantiles[2].Nanoseconds()) / 1e3,
		"version":         runtime.Version(),
	}
	if gc[0].Value.Kind() == metrics.KindFloat64 {
		result["gc_cpu_s"] = gc[0].Value.Float64()
	}
	if gc[1].Value.Kind() == metrics.KindFloat64 {
		result["gc_idle_cpu_s"] = gc[1].Value.Float64()
	}
	clock.report(result)
	if requests.count() > 0 {
		result["request_histogram"] = requests.pairs()
	}
	if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
		fatal("%v", err)
	}
}
