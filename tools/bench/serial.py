#!/usr/bin/env python3
"""What `packmule sync` carries over a simulated serial cable, beside ZMODEM and Kermit in the same run.

usage: serial.py [--packmule FILE] [--bauds 921600,115200] [--bers 0,1e-6,1e-5,1e-4] [--seeds 1,2,3]
                 [--cases plain,cut,hangup,latency,weather] [--peers sz,kermit-1k] [-j 2] [--out FILE.jsonl]

The cable and the peers are those of the folder SHARED (by default ../shared beside the repository, with
bench/uartsim.py and bench/serial_peers.py); where it is not, it says "skipped" and ends with status 0.

plain    1 MiB of incompressible content as rows with BLOBs of 4 KiB, 5 ms
cut      the wire is cut for 2 s in the middle, 921,600 baud
hangup   both ttys vanish for 2 s in the middle, 921,600 baud
latency  50 ms, bit error rate 1e-5, 921,600 baud
weather  the weather data's three boards, one after the other, to one base at 115,200 baud

Goodput: bytes of content by the seconds from the start of `sync` to its end, by what the line carries in
that time. A run that does not end with equal digests counts 0.
"""
import argparse, concurrent.futures as cf, csv, json, os, random, shutil, signal, sqlite3, subprocess, sys, tempfile, time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
SHARED = os.environ.get("SHARED") or os.path.join(os.path.dirname(ROOT), "shared")
SIZE = 1 << 20
LIMIT = 400


def run(program, *args):
    done = subprocess.run([program, *args], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join([program, *args])}: {done.stderr}")
    return done.stdout


def devices(program, folder, names):
    run(program, "fleet", "new", f"{folder}/fleet.key")
    for name in names:
        base = ["--base"] if name == "base" else []
        run(program, "init", f"{folder}/{name}.db", "--name", name, "--fleet", f"{folder}/fleet.key", *base)


def fill(path):
    content = random.Random(12345).randbytes(SIZE)
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE photos (id TEXT PRIMARY KEY, body BLOB)")
    rows = ((f"{at:08x}", content[at : at + 4096]) for at in range(0, SIZE, 4096))
    db.executemany("INSERT INTO photos VALUES (?, ?)", rows)
    db.commit()
    db.close()


class Cable:
    def __init__(self, folder, baud, **faults):
        self.a, self.b, self.stats = f"{folder}/ttyA", f"{folder}/ttyB", f"{folder}/cable.json"
        line = [sys.executable, f"{SHARED}/bench/uartsim.py", self.a, self.b, "--baud", str(baud), "--stats", self.stats]
        for name, value in faults.items():
            line += [f"--{name.replace('_', '-')}", str(value)]
        self.process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
        self.process.stdout.readline()

    def end(self):
        self.process.terminate()
        self.process.wait()
        return json.load(open(self.stats))


def sync(program, folder, baud, boards, base="base", **faults):
    """Each board in turn with the base's `serve`; seconds for each, or None."""
    cable = Cable(folder, baud, **faults)
    # The cable carries one rate, whatever the ttys are set to.
    rate = ["--baud", str(baud), "--baud-max", str(baud)]
    log = open(f"{folder}/serve.log", "w")
    serve = subprocess.Popen(
        [program, "serve", f"{folder}/{base}.db", "--serial", cable.b, *rate], stdout=log, stderr=log
    )
    time.sleep(0.5)
    seconds = []
    for board in boards:
        begun = time.monotonic()
        try:
            done = subprocess.run(
                [program, "sync", f"{folder}/{board}.db", "--serial", cable.a, *rate, "--json"],
                capture_output=True, text=True, timeout=LIMIT,
            )
            ok = done.returncode == 0
            with open(f"{folder}/sync.log", "a") as f:
                f.write(done.stdout + done.stderr)
        except subprocess.TimeoutExpired:
            ok = False
        seconds.append(time.monotonic() - begun if ok else None)
    serve.send_signal(signal.SIGTERM)
    status = serve.wait()
    stats = cable.end()
    return seconds, stats, status


def one(program, work, case, baud, ber, seed):
    folder = tempfile.mkdtemp(prefix=f"{case}-{baud}-{ber}-{seed}-", dir=work)
    devices(program, folder, ["board", "base"])
    fill(f"{folder}/board.db")
    run(program, "track", f"{folder}/board.db", "photos")
    faults = dict(ber=ber, seed=seed, latency_ms=50 if case == "latency" else 5)
    if case in ("cut", "hangup"):
        ideal = SIZE / (baud / 10)
        faults |= dict(unplug_at=f"{0.5 * ideal:.3f}", unplug_for=2, unplug_mode="wire" if case == "cut" else "hangup")
    (seconds,), stats, status = sync(program, folder, baud, ["board"], **faults)
    same = run(program, "digest", f"{folder}/board.db") == run(program, "digest", f"{folder}/base.db")
    # Lines are broken where they are long.
    well = "all is well" in " ".join(run(program, "verify", f"{folder}/base.db").split())
    ok = seconds is not None and same and well and status == 0
    shutil.rmtree(folder, ignore_errors=ok)
    return dict(
        tool="packmule", case=case, baud=baud, ber=ber, seed=seed, ok=ok, seconds=seconds and round(seconds, 2),
        goodput=round(SIZE / seconds / (baud / 10), 3) if ok else 0, wire=stats["ab"]["sent"], back=stats["ba"]["sent"],
        oversleep=stats["worst_oversleep_s"],
    )


def peer(work, name, case, baud, ber, seed):
    """A peer, by the shared program, which writes its own line."""
    folder = tempfile.mkdtemp(prefix=f"{name}-{case}-", dir=work)
    line = [sys.executable, f"{SHARED}/bench/serial_peers.py", "--peers", name, "--bauds", str(baud), "--bers", str(ber),
            "--seeds", str(seed), "-j", "1", "--limit", str(LIMIT), "--size", str(SIZE), "--out", f"{folder}/out.jsonl",
            "--latency-ms", "50" if case == "latency" else "5"]
    if case in ("cut", "hangup"):
        line += ["--unplug", "0.5", "--unplug-for", "2", "--unplug-mode", "wire" if case == "cut" else "hangup"]
    done = subprocess.run(line, capture_output=True, text=True, env=dict(os.environ, WORK=folder))
    got = json.loads(done.stdout.splitlines()[-1])
    return dict(tool=name, case=case, baud=baud, ber=ber, seed=seed, ok=got["ok"], seconds=got["wall"], goodput=got["goodput"],
                wire=got["wire"], back=got["back"])


def weather(program, work, seed):
    """Three boards' databases as the sensors' applications keep them; then the same three files by ZMODEM."""
    source = f"{SHARED}/data/weather.csv"
    folder = tempfile.mkdtemp(prefix="weather-", dir=work)
    rows = list(csv.DictReader(open(source)))
    columns = [c for c in rows[0]]
    place = next((c for c in columns if c.lower() in ("origin",)), None)
    places = sorted({row[place] for row in rows})[:3] if place else [None] * 3
    boards = ["north", "east", "west"]
    devices(program, folder, boards + ["base"])
    plain = []
    for at, board in enumerate(boards):
        mine = [r for r in rows if r[place] == places[at]] if place else rows[at::3]
        for path in (f"{folder}/{board}.db", f"{folder}/{board}-plain.db"):
            db = sqlite3.connect(path)
            names = ", ".join(f'"{c}"' for c in columns)
            db.execute(f"CREATE TABLE readings (id INTEGER PRIMARY KEY AUTOINCREMENT, {names})")
            number = lambda v: None if v in ("", "NA") else next((t(v) for t in (int, float) if is_a(t, v)), v)
            db.executemany(
                f"INSERT INTO readings ({names}) VALUES ({', '.join('?' * len(columns))})",
                [[number(r[c]) for c in columns] for r in mine],
            )
            db.commit()
            db.execute("VACUUM")
            db.close()
        plain.append(os.path.getsize(f"{folder}/{board}-plain.db"))
        run(program, "track", f"{folder}/{board}.db", "readings", "--mode", "per-device", "--append")
    seconds, stats, status = sync(program, folder, 115200, boards, seed=seed)
    base = sqlite3.connect(f"{folder}/base.db")
    count = base.execute("SELECT count(*) FROM readings").fetchone()[0]
    zmodem = []
    for board in boards:
        zmodem.append(zmodem_file(folder, f"{folder}/{board}-plain.db", 115200))
    return dict(tool="weather", ok=None not in seconds and status == 0, rows=count, seconds=[s and round(s, 1) for s in seconds],
                total=round(sum(s or 0 for s in seconds), 1), bytes_wire=stats["ab"]["sent"], file_bytes=plain,
                zmodem=[z and round(z, 1) for z in zmodem], zmodem_total=round(sum(z or 0 for z in zmodem), 1))


def is_a(kind, text):
    try:
        kind(text)
        return True
    except ValueError:
        return False


def zmodem_file(folder, path, baud):
    cable = Cable(folder, baud)
    got = tempfile.mkdtemp(dir=folder)
    ends = []
    for tty, command in ((cable.b, ["rz", "-b", "-y"]), (cable.a, ["sz", "-b", path])):
        with open(tty, "rb", buffering=0) as stdin, open(tty, "wb", buffering=0) as stdout:
            ends.append(subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=subprocess.DEVNULL, cwd=got))
        begun = time.monotonic()
        time.sleep(0.5 if len(ends) == 1 else 0)
    status = ends[1].wait()
    seconds = time.monotonic() - begun
    for end in ends:
        if end.poll() is None:
            end.terminate()
    cable.end()
    return seconds if status == 0 else None


def table(results):
    groups = {}
    for r in results:
        if r["tool"] != "weather":
            groups.setdefault((r["case"], r["baud"], r["ber"]), {}).setdefault(r["tool"], []).append(r)
    tools = list(dict.fromkeys(r["tool"] for r in results if r["tool"] != "weather"))
    print("\n| case | baud | bit error rate | " + " | ".join(tools) + " |")
    print("|---|---|---|" + "---|" * len(tools))
    for (case, baud, ber), by in sorted(groups.items(), key=lambda g: (g[0][0] != "plain", g[0][0], -g[0][1], g[0][2])):
        cells = []
        for tool in tools:
            values = sorted(r["goodput"] for r in by.get(tool, []))
            if not values:
                cells.append("")
            elif len(values) == 1 or values[0] == values[-1]:
                cells.append(f"{values[0]:.2f}")
            else:
                cells.append(f"{sum(values) / len(values):.2f} ({values[0]:.2f}–{values[-1]:.2f})")
        print(f"| {case} | {baud:,} | {ber:g} | " + " | ".join(cells) + " |")
    for r in results:
        if r["tool"] == "weather":
            print(f"\nweather, 115,200 baud: packmule {r['total']} s {r['seconds']} for {r['rows']} rows ({r['bytes_wire']} bytes on the wire); "
                  f"ZMODEM {r['zmodem_total']} s {r['zmodem']} for files of {r['file_bytes']} bytes")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--packmule", default=os.path.join(ROOT, "target/release/packmule"))
    p.add_argument("--bauds", default="921600,115200"); p.add_argument("--bers", default="0,1e-6,1e-5,1e-4")
    p.add_argument("--seeds", default="1,2,3"); p.add_argument("--cases", default="plain,cut,hangup,latency,weather")
    p.add_argument("--peers", default="sz,kermit-1k"); p.add_argument("-j", type=int, default=2); p.add_argument("--out")
    o = p.parse_args()
    if not os.path.exists(f"{SHARED}/bench/uartsim.py"):
        print(f"skipped: {SHARED}/bench is not here")
        return
    peers = [t for t in o.peers.split(",") if t and shutil.which("sz" if t.startswith("s") else "kermit")]
    seeds = [int(s) for s in o.seeds.split(",")]
    jobs = []
    for case in o.cases.split(","):
        if case == "plain":
            grid = [(int(b), float(e)) for b in o.bauds.split(",") for e in o.bers.split(",")]
        else:
            grid = [(921600, 1e-5 if case == "latency" else 0.0)]
        for baud, ber in grid if case != "weather" else []:
            for seed in seeds if ber else seeds[:1]:
                jobs += [("packmule", case, baud, ber, seed)] + [(t, case, baud, ber, seed) for t in peers]
    work = tempfile.mkdtemp(prefix="packmule-serial-")
    results = []

    def do(job):
        tool, *rest = job
        if tool == "packmule":
            return one(o.packmule, work, *rest)
        return peer(work, tool, *rest)

    with cf.ThreadPoolExecutor(o.j) as pool:
        for future in cf.as_completed([pool.submit(do, job) for job in jobs]):
            results.append(future.result())
            print(json.dumps(results[-1]), flush=True)
    if "weather" in o.cases.split(","):
        results.append(weather(o.packmule, work, seeds[0]))
        print(json.dumps(results[-1]), flush=True)
    if o.out:
        with open(o.out, "w") as f:
            f.writelines(json.dumps(r) + "\n" for r in results)
    table(results)
    shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
