"""Servers for the suites of others: a plain one, and a cluster with a proxy whose clients have a database of their own."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# What a suite may do to a server that is there for it alone.
OPEN = ["--save", "", "--enable-debug-command", "yes", "--enable-protected-configs", "yes", "--enable-module-command", "yes"]

# What the owner of the one database of a cluster may do to all of it.
ALLOW = [
    "config set", "config resetstat", "config rewrite", "client pause", "debug", "function delete", "function flush", "function kill",
    "function load", "function restore", "latency reset", "memory purge", "script kill", "slowlog", "acl setuser",
    "acl deluser", "acl getuser", "acl list", "acl log", "acl users", "acl load", "acl save", "bgsave", "bgrewriteaof", "save",
    "latency", "memory stats", "memory doctor", "commandlog reset", "script debug", "reset",
]


def free_port():
    """A port that nobody has, and whose cluster bus port exists."""
    while True:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
        if port < 55000:
            return port


def ask(port, *words, timeout=10):
    """The reply to a command, as far as one read goes."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as stream:
        frame = b"*%d\r\n" % len(words)
        for word in words:
            word = word if isinstance(word, bytes) else str(word).encode()
            frame += b"$%d\r\n%s\r\n" % (len(word), word)
        stream.sendall(frame)
        return stream.recv(1 << 16)


def eventually(what, condition, patience=60):
    until = time.monotonic() + patience
    while True:
        with contextlib.suppress(OSError):
            if condition():
                return
        if time.monotonic() > until:
            raise SystemExit(f"not in {patience} s: {what() if callable(what) else what}")
        time.sleep(0.05)


class Servers:
    """What is started, and ends with it."""

    def __init__(self, server="redis-server", proxy=None):
        self.server = server
        self.proxy_binary = proxy or os.environ.get("SLOTWAY") or os.path.join(ROOT, "target", "debug", "slotway")
        self.folder = tempfile.mkdtemp(prefix="slotway-suites-")
        self.running = []

    def __enter__(self):
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        return self

    def end_all(self):
        for process in self.running:
            process.kill()
            process.wait()
        self.running.clear()

    def __exit__(self, *_):
        self.end_all()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self, name, words, port):
        folder = tempfile.mkdtemp(prefix=f"{name}-{port}-", dir=self.folder)
        # What is set for tests is no setting of the proxy's.
        environment = {key: value for key, value in os.environ.items() if not key.startswith("SLOTWAY_")}
        with open(os.path.join(folder, "log"), "wb") as log:
            self.running.append(subprocess.Popen(words, cwd=folder, stdout=log, stderr=log, env=environment))
        said = os.path.join(folder, "log")
        eventually(lambda: f"{name} answers: {open(said).read()[-2000:]}", lambda: ask(port, "PING") == b"+PONG\r\n")
        return port

    def node(self, *options):
        port = free_port()
        return self.start("node", [self.server, "--port", str(port), *OPEN, *options], port)

    def plain(self):
        return self.node()

    def cluster(self):
        # The proxy's own user: suites set the default user's password, and take it back.
        own = ["--user", "proxy", "on", ">secret", "~*", "&*", "+@all"]
        ports = [self.node("--cluster-enabled", "yes", *own) for _ in range(3)]
        for index, port in enumerate(ports):
            first, last = index * 16384 // 3, (index + 1) * 16384 // 3
            ask(port, "CLUSTER", "ADDSLOTS", *range(first, last))
            ask(port, "CLUSTER", "SET-CONFIG-EPOCH", index + 1)
        for port in ports[1:]:
            ask(ports[0], "CLUSTER", "MEET", "127.0.0.1", port)
        for port in ports:
            eventually("the cluster is whole", lambda port=port: b"cluster_state:ok" in ask(port, "CLUSTER", "INFO")
                       and b"cluster_known_nodes:3" in ask(port, "CLUSTER", "INFO"))
        return ports

    def proxy(self, nodes, **settings):
        """A proxy for these nodes, in a database; `settings` are keys of its configuration."""
        port = free_port()
        file = os.path.join(self.folder, f"proxy-{port}.toml")
        settings = {"seeds": [f"127.0.0.1:{node}" for node in nodes], "listen": f"127.0.0.1:{port}", "admin": "off",
                    "database": "suite", "username": "proxy", "password": "secret", **settings}
        with open(file, "w") as out:
            for key, value in settings.items():
                out.write(f"{key} = {toml(value)}\n")
        port = self.start("proxy", [self.proxy_binary, "--config", file], port)
        eventually("the proxy serves", lambda: ask(port, "DBSIZE").startswith(b":"))
        return port


def toml(value):
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return str(value) if isinstance(value, int) else '"' + value + '"'
