"""`slotway top` in a pseudo-terminal of 80x24, driven by lines on stdin: see TEXT, press KEYS, resize W H, end."""
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time

PATIENCE = 30
master, slave = pty.openpty()


def resize(width, height):
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))


resize(80, 24)
before = termios.tcgetattr(slave)
child = subprocess.Popen(sys.argv[1:], stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
raw = b""


def words(since):
    """What has been written, without what moves the cursor: a move stands for a space."""
    text = raw[since:].decode(errors="replace")
    text = re.sub(r"\x1b\[[0-9;?]*H", " ", text)
    return " ".join(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()=>78].?", "", text).split())


def more(until):
    global raw
    ready, _, _ = select.select([master], [], [], max(0, min(0.2, until - time.time())))
    if ready:
        try:
            raw += os.read(master, 65536)
        except OSError:
            return


since = 0
for line in sys.stdin:
    verb, _, rest = line.rstrip("\n").partition(" ")
    until = time.time() + PATIENCE
    if verb == "see":
        while rest not in words(since):
            if time.time() > until or child.poll() is not None:
                print(f"never seen: {rest}; but: {words(since)[-3000:]}", flush=True)
                sys.exit(1)
            more(until)
        since = len(raw)
        print("seen", flush=True)
    elif verb == "press":
        since = len(raw)
        os.write(master, rest.encode().decode("unicode_escape").encode())
        print("pressed", flush=True)
    elif verb == "resize":
        since = len(raw)
        resize(*map(int, rest.split()))
        os.kill(child.pid, signal.SIGWINCH)
        print("resized", flush=True)
    elif verb == "signal":
        os.kill(child.pid, int(rest))
        print("sent", flush=True)
    elif verb == "end":
        while child.poll() is None and time.time() < until:
            more(until)
        more(time.time() + 0.2)
        colours = bool(re.search(rb"\x1b\[(?:[0-9;]*;)?38;5;\d+", raw))
        left = raw.rstrip().endswith(b"\x1b[?25h") or b"\x1b[?1049l" in raw[-200:]
        same = termios.tcgetattr(slave) == before
        print(f"code {child.poll()} left {left} restored {same} colours {colours}", flush=True)
