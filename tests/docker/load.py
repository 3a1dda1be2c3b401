"""Plain clients inside the network: INCR on keys of their own through one name, and an exact account of it.

    load.py NAME PORT CLIENTS STOP-FILE

Every reply is checked against the client's own count. A connection that is closed while no request is under way is
reopened, at any address of the name; so is one that cannot be opened. Prints one line of JSON when STOP-FILE appears.
"""

import json
import os
import random
import socket
import sys
import threading
import time

name, port, clients, stop_file = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
account = {"acknowledged": 0, "closed": 0, "unopened": 0, "errors": [], "wrong": [], "slowest": 0.0, "addresses": []}
lock = threading.Lock()
end = time.monotonic() + 300


def connect():
    while True:
        try:
            addresses = sorted({info[4][0] for info in socket.getaddrinfo(name, port, socket.AF_INET)})
            chosen = random.choice(addresses)
            connection = socket.create_connection((chosen, port), timeout=5)
            with lock:
                if chosen not in account["addresses"]:
                    account["addresses"].append(chosen)
            return connection
        except OSError:
            with lock:
                account["unopened"] += 1
            time.sleep(0.02)


def ask(connection, *args):
    """The reply's first line, or None where the connection was closed instead of an answer."""
    request = b"*%d\r\n" % len(args) + b"".join(b"$%d\r\n%s\r\n" % (len(arg), arg) for arg in args)
    try:
        connection.sendall(request)
        reply = b""
        while not reply.endswith(b"\r\n"):
            received = connection.recv(4096)
            if not received:
                return None
            reply += received
        return reply.decode().strip()
    except (ConnectionResetError, BrokenPipeError):
        return None


def client(number):
    key, count, connection = b"load:%d" % number, 0, connect()
    while not os.path.exists(stop_file) and time.monotonic() < end:
        start = time.monotonic()
        reply = ask(connection, b"INCR", key)
        with lock:
            account["slowest"] = max(account["slowest"], time.monotonic() - start)
            if reply is None:
                account["closed"] += 1
            elif reply == f":{count + 1}":
                account["acknowledged"] += 1
            elif reply.startswith("-"):
                account["errors"].append(reply)
            else:
                account["wrong"].append(f"{key.decode()}: {reply} after {count}")
        if reply is None:
            connection.close()
            connection = connect()
        elif reply.startswith(":"):
            count = int(reply[1:])
        time.sleep(0.005)


threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps(account))
