"""A bad network between two hosts, which are network namespaces: two taps, and what is done to each frame in between.

Where the kernel has `netem` that could do the same; this needs /dev/net/tun alone. Run by tests/stories/two_hosts.rs in a
user, network and mount namespace of its own: `python3 wire.py SEED LOSS DELAY_MS`. Says `ready`; then reads `cut` and `join`,
and `move 10.9.0.N`: B has that address from now on, and no other.
"""

import fcntl
import heapq
import os
import random
import select
import struct
import subprocess
import sys
import time

TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 2, 0x1000


def sh(*commands):
    for command in commands:
        subprocess.run(command.split(), check=True)


def tap(name):
    fd = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TAP | IFF_NO_PI))
    return fd


def main():
    seed, loss, delay = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]) / 1000
    chance = random.Random(seed)
    sh("mount -t tmpfs tmpfs /run", "ip netns add b", "ip link set lo up", "ip -n b link set lo up")
    ends = [tap("wire-a"), tap("wire-b")]
    sh("ip link set wire-b netns b", "ip addr add 10.9.0.1/24 dev wire-a", "ip -n b addr add 10.9.0.2/24 dev wire-b")
    sh("ip link set wire-a up", "ip -n b link set wire-b up")
    print("ready", flush=True)
    on_way, number, carries = [], 0, True
    while True:
        now = time.monotonic()
        while on_way and on_way[0][0] <= now:
            _, _, end, frame = heapq.heappop(on_way)
            try:
                os.write(end, frame)
            except OSError:
                pass
        wait = max(0, on_way[0][0] - now) if on_way else None
        ready, _, _ = select.select(ends + [0], [], [], wait)
        if 0 in ready:
            said = sys.stdin.readline().strip()
            if not said:
                return
            if said.startswith("move "):
                sh("ip -n b addr flush dev wire-b", f"ip -n b addr add {said[5:]}/24 dev wire-b")
            else:
                carries = said == "join"
            print(said, flush=True)
        for at in (0, 1):
            if ends[at] not in ready:
                continue
            frame = os.read(ends[at], 65536)
            # Lost, once, or twice; each after a time of its own, so that they change places.
            times = 0 if not carries or chance.random() < loss else 2 if chance.random() < loss / 2 else 1
            for _ in range(times):
                number += 1
                heapq.heappush(on_way, (now + chance.random() * delay, number, ends[1 - at], frame))


main()
