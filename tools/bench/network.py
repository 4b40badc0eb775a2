#!/usr/bin/env python3
"""Goodput of `packmule sync` over a bad network, beside `rsync` and `scp` of the same bytes over the same wire in the same run.

    tools/bench/network.py PROGRAM [MIB]

prints a table for tools/bench/NETWORK.md. Two hosts, which are network namespaces, with the wire of tests/net/wire.py between
them, which loses frames, delays each by a time of its own, and repeats some. It needs Linux with user namespaces and
/dev/net/tun, `rsync`, and the `scp` and `sshd` of OpenSSH. What each carries: rows with random BLOBs, `rsync` (to its own daemon)
and `scp` the SQLite file that has them. By turns, one at a time; seconds from the start of the command to its end.
"""

import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
WIRE = os.path.join(HERE, "../../tests/net/wire.py")
# Loss of frames, and the longest delay of one in ms.
WIRES = [(0, 0), (0, 5), (0.01, 5), (0.05, 20)]
TURNS = 3
# Who is no root gets no groups in a namespace of his own, which rsync's and SSH's servers want to set.
ROOT = os.geteuid() == 0


class Hosts:
    def __init__(self, folder, loss, delay):
        self.folder = folder
        command = ["unshare", "-nm" if ROOT else "-rnm", sys.executable, WIRE, "1", str(loss), str(delay)]
        self.wire = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self.wire.stdout.readline() != "ready\n":
            raise SystemExit("this machine makes no network namespaces, or has no /dev/net/tun")

    def on(self, host, *words):
        enter = ["nsenter", "-t", str(self.wire.pid), *([] if ROOT else ["-U", "--preserve-credentials"]), "-n", "-m", f"--wd={self.folder}"]
        return [*enter, *(["nsenter", "--net=/run/netns/b"] if host == "b" else []), *words]

    def start(self, host, *words):
        log = open(f"{self.folder}/log", "a")
        return subprocess.Popen(self.on(host, *words), stdout=log, stderr=log)

    def timed(self, *words):
        begun = time.monotonic()
        done = subprocess.run(self.on("a", *words), capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(words)}: {done.stdout}{done.stderr}{open(self.folder + '/log').read()}")
        return time.monotonic() - begun


def waits(port, hosts):
    probe = f"import socket; socket.create_connection(('10.9.0.2', {port}), 2)"
    while subprocess.run(hosts.on("a", sys.executable, "-c", probe), stderr=subprocess.DEVNULL).returncode:
        time.sleep(0.1)


def devices(program, folder, turn, mib):
    run = lambda *words: subprocess.run([program, *words], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    if turn == 0:
        run("fleet", "new", "fleet.key")
        run("init", "base.db", "--name", "base", "--fleet", "fleet.key", "--base")
    content = random.Random(turn)
    with sqlite3.connect(f"{folder}/{turn}.plain") as plain:
        plain.execute("CREATE TABLE photos (id INTEGER PRIMARY KEY, body BLOB)")
        rows = [(turn << 20 | n, content.randbytes(4096)) for n in range(mib << 8)]
        plain.executemany("INSERT INTO photos VALUES (?, ?)", rows)
    plain.close()
    with sqlite3.connect(f"{folder}/{turn}.db") as board:
        board.execute("CREATE TABLE photos (id INTEGER PRIMARY KEY, body BLOB)")
        board.executemany("INSERT INTO photos VALUES (?, ?)", rows)
    board.close()
    run("init", f"{turn}.db", "--name", f"board{turn}", "--fleet", "fleet.key")
    run("track", f"{turn}.db", "photos")
    run("seal", f"{turn}.db")


def measure(program, folder, loss, delay, mib):
    for turn in range(TURNS):
        devices(program, folder, turn, mib)
    for key in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{folder}/{key}"], check=True)
    with open(f"{folder}/sshd_config", "w") as file:
        file.write(f"Port 2222\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/user.pub\nStrictModes no\nUsePAM no\nPidFile none\n"
                   "PermitRootLogin yes\nPasswordAuthentication no\nSubsystem sftp internal-sftp\n")
    with open(f"{folder}/rsyncd.conf", "w") as file:
        file.write(f"use chroot = no\n[to]\npath = {folder}/got\nread only = no\nuid = 0\ngid = 0\n")
    os.makedirs(f"{folder}/got")
    hosts = Hosts(folder, loss, delay)
    served = [
        hosts.start("b", program, "serve", "base.db", "--listen", "10.9.0.2:7225"),
        hosts.start("b", "rsync", "--daemon", "--no-detach", "--port=8730", f"--config={folder}/rsyncd.conf"),
        # It wants a folder that is not on this mount of /run.
        hosts.start("b", "sh", "-c", f"mkdir -p /run/sshd; exec /usr/sbin/sshd -D -e -f {folder}/sshd_config"),
    ]
    try:
        for port in (7225, 8730, 2222):
            waits(port, hosts)
        ssh = ["-F", "none", "-P", "2222", "-i", f"{folder}/user", "-o", "StrictHostKeyChecking=no", "-o", "LogLevel=ERROR",
               "-o", f"UserKnownHostsFile={folder}/known"]
        took = {"packmule": [], "rsync": [], "scp": []}
        for turn in range(TURNS):
            took["packmule"].append(hosts.timed(program, "sync", f"{turn}.db", "tcp://10.9.0.2:7225"))
            took["rsync"].append(hosts.timed("rsync", f"{turn}.plain", f"rsync://10.9.0.2:8730/to/{turn}.rsync"))
            took["scp"].append(hosts.timed("scp", *ssh, f"{turn}.plain", f"10.9.0.2:{folder}/got/{turn}.scp"))
    finally:
        for process in served:
            process.terminate()
        hosts.wire.kill()
    count = sqlite3.connect(f"{folder}/base.db").execute("SELECT count(*) FROM photos").fetchone()[0]
    assert count == TURNS * (mib << 8), f"{count} rows have come"
    rate = lambda seconds: f"{mib * 1.048576 / sorted(seconds)[TURNS // 2]:.2f}"
    spread = lambda seconds: f"{rate(seconds)} ({mib * 1.048576 / max(seconds):.2f}–{mib * 1.048576 / min(seconds):.2f})"
    print(f"| {loss:.0%}, 0 to {delay} ms | " + " | ".join(spread(took[name]) for name in took) + " |", flush=True)


def main():
    program, mib = os.path.abspath(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 4
    print("| frames lost, delay | packmule | rsync | scp |\n|---|---|---|---|", flush=True)
    for loss, delay in WIRES:
        with tempfile.TemporaryDirectory() as folder:
            os.chmod(folder, 0o755)
            measure(program, folder, loss, delay, mib)


main()
