#!/usr/bin/env python3
"""Which part of a request's instructions goes to counting: callgrind says how often each instruction ran, addr2line of which
functions it is, those that were inlined with them, and so of which file of the source. The kernel's instructions are not counted.

    CARGO_PROFILE_RELEASE_STRIP=none CARGO_PROFILE_RELEASE_DEBUG=line-tables-only cargo build --release
    slotway dev &                                            # three nodes on 7000, 7001 and 7002
    python3 benches/share.py target/release/slotway 127.0.0.1:7000

It needs valgrind and llvm-addr2line. GETs, sixteen at a time, of one client.
"""

import collections
import glob
import os
import re
import socket
import subprocess
import sys
import tempfile
import time

REQUESTS, PIPELINE = 20_000, 16
# What counts, by the file of an instruction's function, or of one that it was inlined in: the first that fits.
PARTS = {"hot keys": "proxy/metrics/hot", "other metrics": "proxy/metrics/"}


def main(program, seeds):
    with tempfile.TemporaryDirectory() as folder:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        counted = "valgrind --tool=callgrind --separate-threads=yes --dump-instr=yes --quiet".split()
        counted.append(f"--callgrind-out-file={folder}/counts")
        served = f"--listen 127.0.0.1:{port} --admin off --seeds {seeds} --workers 1 --slow-request 1m".split()
        proxy = subprocess.Popen([*counted, program, "serve", *served], stderr=subprocess.DEVNULL)
        try:
            client = connected(port)
            ask(client, REQUESTS // 5)
            dump(proxy)
            ask(client, REQUESTS)
            dump(proxy)
        finally:
            proxy.terminate()
            proxy.wait()
        worker = max((costs(file) for file in glob.glob(f"{folder}/counts.2-*")), key=lambda counts: sum(counts.values()))
    shares, total = shared_out(program, worker), sum(worker.values())
    print(f"{total / REQUESTS:.0f} instructions per GET, {PIPELINE} at a time; of them:")
    for part in PARTS:
        print(f"{shares[part] / REQUESTS:6.1f} for {part} ({100 * shares[part] / total:.2f} %)")


def connected(port):
    for _ in range(200):
        try:
            client = socket.create_connection(("127.0.0.1", port))
            client.sendall(b"GET share:ready\r\n")
            if client.recv(100).startswith(b"$"):
                return client
        except OSError:
            pass
        time.sleep(0.3)
    sys.exit("the proxy does not serve: are there nodes at these seeds?")


def ask(client, count):
    replies = client.makefile("rb")
    for number in range(count // PIPELINE):
        keys = (f"share:{(number * PIPELINE + at) * 7919 % 10_000:010}" for at in range(PIPELINE))
        client.sendall("".join(f"*2\r\n$3\r\nGET\r\n${len(key)}\r\n{key}\r\n" for key in keys).encode())
        for _ in range(PIPELINE):
            assert replies.readline() == b"$-1\r\n"


def dump(proxy):
    subprocess.run(["callgrind_control", "--dump", str(proxy.pid)], check=True, stdout=subprocess.DEVNULL)


def costs(file):
    """How often each instruction ran, by object and address, from one thread's file."""
    counts, objects, place, address, inclusive = collections.Counter(), {}, "", 0, False
    for line in open(file):
        if named := re.match(r"c?ob=\((\d+)\)(?: (.*))?", line):
            objects[named[1]] = named[2] or objects[named[1]]
            place = place if line.startswith("c") else objects[named[1]]
        elif line.startswith("calls="):
            inclusive = True
        elif cost := re.match(r"(0x[0-9a-f]+|[+-]\d+|\*) \S+(?: (\d+))?$", line):
            step = cost[1]
            address = int(step, 16) if step.startswith("0x") else address if step == "*" else address + int(step)
            if not inclusive:
                counts[place, address] += int(cost[2] or 0)
            inclusive = False
    return counts


def shared_out(program, counts):
    """Instructions by part."""
    ours = {address: count for (place, address), count in counts.items() if place.endswith(os.path.basename(program))}
    asked = ["llvm-addr2line", "--addresses", "--inlines", f"--obj={program}"]
    told = subprocess.run(asked, input="\n".join(map(hex, ours)), capture_output=True, text=True, check=True).stdout
    shares = collections.Counter()
    for frames in re.split(r"^(?=0x)", told, flags=re.MULTILINE)[1:]:
        address = int(frames.split("\n", 1)[0], 16)
        part = next((part for part, path in PARTS.items() if path in frames), None)
        shares[part] += ours[address]
    return shares


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2])
