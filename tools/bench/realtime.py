#!/usr/bin/env python3
"""Seconds from an application's INSERT at a board to the row at the base, and back, with `packmule run` connected.

    tools/bench/realtime.py PROGRAM [ROUNDS]

prints a table for src/docs/network.md. Both ends run on this machine; each looks every 0.25 s whether something was written,
so what is measured is mostly that: the inserts come at random moments. Also the processor time of both ends while idle.
"""

import json
import os
import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time


def main():
    program, rounds = os.path.abspath(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 40
    print("| link | way | median | 90 of 100 | longest |\n|---|---|---|---|---|")
    for scheme in ("tcp", "ws"):
        with tempfile.TemporaryDirectory() as folder:
            measure(program, folder, scheme, rounds)


def measure(program, folder, scheme, rounds):
    def run(*words):
        subprocess.run([program, *words], cwd=folder, check=True, stdout=subprocess.DEVNULL)

    run("fleet", "new", "fleet.key")
    run("init", "base.db", "--name", "base", "--fleet", "fleet.key", "--base")
    run("init", "north.db", "--name", "north", "--fleet", "fleet.key")
    connect = lambda name: sqlite3.connect(os.path.join(folder, name), isolation_level=None, timeout=10)
    north = connect("north.db")
    north.execute("CREATE TABLE t (id TEXT PRIMARY KEY, v)")
    run("track", "north.db", "t")
    serve = subprocess.Popen(
        [program, "serve", "base.db", "--listen", "0", "--json"], cwd=folder, stdout=subprocess.PIPE, text=True
    )
    address = json.loads(serve.stdout.readline())["address"]
    with open(os.path.join(folder, "run.toml"), "w") as file:
        file.write(f'[[link]]\nto = "{scheme}://{address}"\nstay = true\n')
    link = subprocess.Popen(
        [program, "run", "north.db", "--config", "run.toml", "--json"], cwd=folder, stdout=subprocess.PIPE, text=True
    )
    while '"in step"' not in link.stdout.readline():
        pass
    base = connect("base.db")
    try:
        for name, source, to in (("board to base", north, base), ("base to board", base, north)):
            took = []
            for n in range(rounds):
                time.sleep(random.random() * 2)
                key = f"{name}{n}"
                begun = time.monotonic()
                source.execute("INSERT INTO t VALUES (?, 1)", (key,))
                while to.execute("SELECT 1 FROM t WHERE id = ?", (key,)).fetchone() is None:
                    time.sleep(0.005)
                took.append(time.monotonic() - begun)
            took.sort()
            at = lambda part: f"{took[min(int(part * rounds), rounds - 1)]:.2f} s"
            print(f"| `{scheme}://` | {name} | {statistics.median(took):.2f} s | {at(0.9)} | {took[-1]:.2f} s |")
        used = lambda: sum(sum(map(int, stat(p.pid)[13:15])) for p in (serve, link)) / os.sysconf("SC_CLK_TCK")
        written = lambda: sum(io(p.pid) for p in (serve, link))
        # What the last rows have left to do.
        time.sleep(10)
        before, bytes_before = used(), written()
        time.sleep(30)
        idle, bytes_idle = (used() - before) * 120, (written() - bytes_before) * 120
        print(f"| `{scheme}://` | idle, an hour of it from 30 s | {idle:.1f} s of the processor, both ends | {bytes_idle} bytes written | |")
    finally:
        for process in (link, serve):
            process.terminate()
            process.wait()


def stat(pid):
    with open(f"/proc/{pid}/stat") as file:
        return file.read().split()


def io(pid):
    with open(f"/proc/{pid}/io") as file:
        return int([line.split()[1] for line in file if line.startswith("write_bytes")][0])


main()
