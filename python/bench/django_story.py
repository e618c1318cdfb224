"""The Instagram story with real parts: Django under gunicorn and uWSGI, four workers forked after the application is
loaded, requests that leak cycles; memory, throughput and latency for the interpreter's collector, gc.disable(),
gc.freeze(), winnow, and winnow with gc.freeze().

Every worker gets the same number of requests, as far as the server lets us (uWSGI's have a port each), and every one is
asked what its collector has done since the fork.

    python python/bench/django_story.py [--requests 3000] [--servers gunicorn,uwsgi] [--plot FILE.svg] [--json FILE]

Makes a virtual environment with Django, the servers, matplotlib and this tree's winnow, in ~/.cache/winnow-django or --venv.
"""

import argparse
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import venv

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
HOWS = ("stock", "disable", "freeze", "winnow", "winnow+freeze")


def prepare(folder, servers):
    python = os.path.join(folder, "bin", "python")
    if not os.path.exists(python):
        print(f"making a virtual environment in {folder}", flush=True)
        venv.create(folder, with_pip=True)
    subprocess.run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "django", *servers, "matplotlib", ROOT],
                   check=True)
    return python


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def get(port, path):
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    c.request("GET", path)
    r = c.getresponse()
    body = r.read()
    c.close()
    if r.status != 200:
        raise RuntimeError(f"{path}: status {r.status}")
    return body


def start(python, server, how, workers, ports, catalogue):
    env = dict(os.environ, HOW=how, CATALOGUE=str(catalogue), PYTHONPATH=HERE)
    env.pop("WINNOW_PYTHON", None)
    folder = os.path.join(HERE, "django_app")
    if server == "gunicorn":
        command = [python, "-m", "gunicorn", "--preload", "-w", str(workers), "-b", f"127.0.0.1:{ports[0]}", "--log-level", "error",
                   "--timeout", "120", "app:application"]
    else:
        sockets = [word for i, port in enumerate(ports)
                   for word in ("--http-socket", f"127.0.0.1:{port}", "--map-socket", f"{i}:{i + 1}")]
        command = [os.path.join(os.path.dirname(python), "uwsgi"), *sockets, "--master",
                   "--processes", str(workers), "--module", "app:application", "--disable-logging", "--listen", "100",
                   "--pythonpath", HERE, "--home", os.path.dirname(os.path.dirname(python)), "--die-on-term"]
    p = subprocess.Popen(command, cwd=folder, env=env, stderr=subprocess.DEVNULL)
    for _ in range(1200):
        try:
            for port in ports:
                get(port, "/memory")
            return p
        except OSError:
            if p.poll() is not None:
                sys.exit(f"{server} ended with status {p.returncode}: {' '.join(command)}")
            time.sleep(0.1)
    sys.exit(f"{server} does not answer")


def workers_of(pid):
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as f:
                    if int(f.read().rpartition(")")[2].split()[1]) == pid:
                        found.append(int(entry))
            except OSError:
                pass
    return found


def smaps(pid):
    with open(f"/proc/{pid}/smaps_rollup") as f:
        return {line.split()[0][:-1]: int(line.split()[1]) for line in f if line.endswith("kB\n")}


def ask_each(ports, pids):
    """What each worker says of itself, by process."""
    said = {}

    def ask(port):
        r = json.loads(get(port, "/memory"))
        said[r["pid"]] = r

    for _ in range(100):
        asking = [threading.Thread(target=ask, args=(port,)) for port in (ports if len(ports) > 1 else ports * 2 * len(pids))]
        for a in asking:
            a.start()
        for a in asking:
            a.join()
        if set(pids) <= set(said):
            break
    return [said[pid] for pid in pids if pid in said]


def measure(python, server, how, workers, requests, catalogue):
    ports = [free_port() for _ in range(workers if server == "uwsgi" else 1)]
    p = start(python, server, how, workers, ports, catalogue)
    took, lock = [], threading.Lock()

    def client(port):
        mine = []
        for _ in range(requests):
            t = time.perf_counter()
            get(port, "/")
            mine.append(time.perf_counter() - t)
        with lock:
            took.extend(mine)

    begin = time.perf_counter()
    clients = [threading.Thread(target=client, args=(ports[i % len(ports)],)) for i in range(workers)]
    for c in clients:
        c.start()
    for c in clients:
        c.join()
    wall = time.perf_counter() - begin
    pids = workers_of(p.pid)
    each = [smaps(pid) for pid in pids]
    said = ask_each(ports, pids)
    full = sorted(r["full"] for r in said)
    served = sorted(r["served"] for r in said)
    p.send_signal(signal.SIGTERM)
    p.wait(60)
    took.sort()
    at = lambda q: took[min(len(took) - 1, int(len(took) * q))] * 1e3
    return {"how": how, "server": server, "workers": len(pids), "requests": len(took), "per_second": len(took) / wall,
            "p50_ms": at(0.5), "p99_ms": at(0.99), "p999_ms": at(0.999), "max_ms": took[-1] * 1e3,
            "rss_mb": sum(m["Rss"] for m in each) / 1024, "pss_mb": sum(m["Pss"] for m in each) / 1024,
            "private_mb": sum(m["Private_Dirty"] for m in each) / 1024, "full": full, "served": served}


PLOT = """
import json, sys
import matplotlib
matplotlib.use("Agg")
import matplotlib.pyplot as plt
matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "winnow"})  # text stays text; the same figures, the same file
rows = json.loads(sys.argv[1])
servers = sys.argv[3:]
figure, axes = plt.subplots(len(servers), 3, figsize=(12, 3.6 * len(servers)), squeeze=False)
for row, server in zip(axes, servers):
    mine = [r for r in rows if r["server"] == server]
    for axis, key, title in zip(row, ("pss_mb", "per_second", "p999_ms"),
                                ("proportional memory of the workers, MB", "requests per second", "99.9th percentile of latency, ms")):
        axis.bar([r["how"] for r in mine], [r[key] for r in mine],
                 color=["#888888", "#bbbbbb", "#999977", "#2f6f9f", "#2f9f6f"][:len(mine)])
        axis.set_title(f"{server}: {title}", fontsize=9)
        axis.tick_params(axis="x", labelsize=7, rotation=20)
figure.tight_layout()
figure.savefig(sys.argv[2], metadata={"Date": None})
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--servers", default="gunicorn,uwsgi")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--requests", type=int, default=3000, help="for each worker")
    parser.add_argument("--catalogue", type=float, default=5e5, help="containers that the application loads before the fork")
    parser.add_argument("--hows", default=",".join(HOWS))
    parser.add_argument("--venv", default=os.path.expanduser("~/.cache/winnow-django"))
    parser.add_argument("--plot", default="django-story.svg")
    parser.add_argument("--json")
    o = parser.parse_args()
    servers = o.servers.split(",")
    if not set(servers) <= {"gunicorn", "uwsgi"}:
        parser.error(f"the servers are gunicorn and uwsgi, not {o.servers}")
    python = prepare(o.venv, servers)
    print(f"Django, {o.workers} workers, {o.requests} requests each")
    print(f"{'':>22} {'resident':>10} {'proportional':>13} {'private':>10} {'requests/s':>11} {'p50':>8} {'p99':>8} {'p99.9':>8} "
          f"{'longest':>9}  full collections of each worker")
    rows = []
    for server, how in ((server, how) for server in servers for how in o.hows.split(",")):
        r = measure(python, server, how, o.workers, o.requests, o.catalogue)
        rows.append(r)
        print(f"{server:>8} {how:>13} {r['rss_mb']:7.0f} MB {r['pss_mb']:10.0f} MB {r['private_mb']:7.0f} MB {r['per_second']:11.0f} "
              f"{r['p50_ms']:5.1f} ms {r['p99_ms']:5.1f} ms {r['p999_ms']:5.1f} ms {r['max_ms']:6.1f} ms  {'/'.join(map(str, r['full']))} in {r['served'][0]}..{r['served'][-1]} requests",
              flush=True)
        if o.json:
            with open(o.json, "a") as f:
                f.write(json.dumps(r) + "\n")
    if o.plot:
        subprocess.run([python, "-c", PLOT, json.dumps(rows), os.path.abspath(o.plot), *servers], check=True)
        print(f"plot: {o.plot}")


if __name__ == "__main__":
    main()
