"""Stalls as the program itself sees them: the same method as bench/clock.h.

The clock is read at short, regular amounts of work; the time between two readings is a gap, and a long gap is a stall,
whoever caused it.
"""

from time import perf_counter_ns

MAX_GAPS = 1 << 15
FIRST_THRESHOLD = 10_000  # ns; doubles when the log of gaps is full


class Histogram:
    """16 buckets per power of two."""

    def __init__(self):
        self.bucket = [0] * (64 * 16)

    def add(self, ns):
        if ns < 16:
            self.bucket[ns] += 1
        else:
            e = ns.bit_length() - 5
            self.bucket[e * 16 + (ns >> e)] += 1

    def pairs(self):
        """The buckets in use as [upper bound in us, count]."""
        pairs = []
        for i, n in enumerate(self.bucket):
            if n:
                e = i // 16 - 1
                upper = i if i < 16 else (i - e * 16 + 1 << e) - 1
                pairs.append([upper / 1e3, n])
        return pairs


class Clock:
    def __init__(self):
        self.bucket = [0] * (64 * 16)
        self.threshold = FIRST_THRESHOLD
        self.ends, self.lengths = [], []
        self.start = self.last = perf_counter_ns()

    def tick(self):
        now = perf_counter_ns()
        gap = now - self.last
        self.last = now
        e = gap.bit_length() - 5
        if e < 0:
            e = 0
        self.bucket[e * 16 + (gap >> e)] += 1
        if gap >= self.threshold:
            self.long(now, gap)
        return now

    def skip(self):
        """What happened since the last reading was preparation, not part of the workload: it is no gap."""
        self.last = perf_counter_ns()

    def long(self, now, gap):
        while len(self.ends) == MAX_GAPS:
            self.threshold *= 2
            kept = [(e, n) for e, n in zip(self.ends, self.lengths) if n >= self.threshold]
            self.ends, self.lengths = [e for e, _ in kept], [n for _, n in kept]
        if gap >= self.threshold:
            self.ends.append(now - self.start)
            self.lengths.append(gap)

    def report(self):
        stalls = Histogram()
        stalls.bucket = self.bucket
        return {
            "stall_histogram": stalls.pairs(),
            "run_us": (self.last - self.start) / 1e3,
            "gap_threshold_us": self.threshold / 1e3,
            "gaps_us": [[end / 1e3, length / 1e3] for end, length in zip(self.ends, self.lengths)],
        }


clock = Clock()
tick = clock.tick
requests = Histogram()


class Lehmer:
    """The generator of bench/random.h."""

    __slots__ = ("x",)

    def __init__(self, seed):
        self.x = seed % 2147483646 + 1

    def below(self, n):
        self.x = x = self.x * 48271 % 2147483647
        return x % n

    def zipf(self, n):
        """A rank below n: every power of two of ranks is equally likely."""
        octaves = n.bit_length()
        while True:
            low = 1 << self.below(octaves)
            rank = low - 1 + self.below(low)
            if rank < n:
                return rank
