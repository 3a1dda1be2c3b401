"""What the applications' days have in common. The server is on the port given. On the standard input the test says `rough` when
it is about to kill a node; the input's end is the end of the day. Before it is rough, there is no excuse for an error, and
what is done is done once."""

import collections
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback

port = int(os.environ.setdefault("PORT", sys.argv[1]))
url = f"redis://127.0.0.1:{port}/0"
folder = os.path.dirname(os.path.abspath(__file__))
PATIENCE = 25

_rough, _over = threading.Event(), threading.Event()
_workers, _leaving = [], []


def begin():
    """Listens to the test. Programs that this one starts write into the same journal."""
    os.environ["JOURNAL"] = tempfile.mkstemp()[1]

    def listen():
        for line in sys.stdin:
            if line.strip() == "rough":
                _rough.set()
                print("rough", flush=True)
        _over.set()

    threading.Thread(target=listen, daemon=True).start()


def note(what):
    """Writes down that something was done."""
    journal = os.open(os.environ["JOURNAL"], os.O_WRONLY | os.O_APPEND)
    os.write(journal, f"{what}\n".encode())
    os.close(journal)


def noted():
    """How often each was."""
    with open(os.environ["JOURNAL"]) as journal:
        return collections.Counter(journal.read().split())


def is_rough():
    return _rough.is_set()


def rounds():
    """One round after the other until the day is over: its number."""
    number = 0
    while number == 0 or not _over.is_set():
        yield number
        number += 1
        if number == 1:
            print("at work", flush=True)


def until(what, look):
    """Waits for something true."""
    end = time.monotonic() + PATIENCE
    while True:
        found = attempt(look)
        if found:
            return found
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.02)


def attempt(do, otherwise=None):
    """Does something; where a node may have been killed, an error is as good as the other value."""
    try:
        return do()
    except Exception as error:
        if not is_rough():
            raise
        sys.stderr.write(f"while it was rough: {type(error).__name__}: {str(error)[:300]}\n")
        return otherwise


async def attempt_async(do, otherwise=None):
    """Likewise, of what is awaited."""
    try:
        return await do()
    except Exception as error:
        if not is_rough():
            raise
        sys.stderr.write(f"while it was rough: {type(error).__name__}: {str(error)[:300]}\n")
        return otherwise


def insist(do):
    """Does something until there is no error, which in fair weather is at once."""
    done = []
    until("no error", lambda: (done.append(do()), True)[1])
    return done[-1]


def worker(*command):
    """Starts a program that works until the day is over, again where it has ended, as a supervisor would."""

    def keep():
        while not _leaving:
            program = subprocess.Popen([sys.executable, *command], env={**os.environ, "PYTHONPATH": folder}, stdin=subprocess.DEVNULL, start_new_session=True)
            _workers.append(program)
            program.wait()
            if not _leaving and not is_rough():
                sys.stderr.write(f"a worker has ended with {program.returncode}\n")
                leave(3)

    threading.Thread(target=keep, daemon=True).start()


def leave(code):
    """Ends with all that was started."""
    _leaving.append(True)
    for program in _workers:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)
    os.remove(os.environ["JOURNAL"])
    sys.stdout.flush()
    os._exit(code)


def live(main):
    """Runs the day to its end."""
    begin()
    signal.signal(signal.SIGTERM, lambda *_: leave(1))
    try:
        main()
        print("all well", flush=True)
        leave(0)
    except BaseException:
        traceback.print_exc()
        leave(1)
