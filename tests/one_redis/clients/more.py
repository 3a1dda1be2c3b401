"""What an application does with redis-py beyond single commands, in both versions: transactions, watched keys,
subscriptions, locks, scripts, blocking, streams. The server is on the port given."""

import sys
import threading
import time

import redis

port = int(sys.argv[1])


def transactions(client):
    with client.pipeline() as pipe:
        pipe.set("{tx}a", 1).incr("{tx}a").lpush("{tx}l", "x").lrange("{tx}l", 0, -1).publish("nobody", "x")
        assert pipe.execute() == [True, 2, 1, ["x"], 0]
    with client.pipeline() as pipe:
        pipe.set("{tx}a", "text").incr("{tx}a").get("{tx}a")
        replies = pipe.execute(raise_on_error=False)
        assert replies[0] is True and isinstance(replies[1], redis.ResponseError) and replies[2] == "text", replies
    with client.pipeline() as pipe:
        pipe.watch("{tx}a")
        pipe.multi()
        client.set("{tx}a", "changed")
        pipe.get("{tx}a")
        try:
            pipe.execute()
            raise SystemExit("a touched transaction ran")
        except redis.WatchError:
            pass

    def increment(pipe):
        now = int(pipe.get("{tx}n") or 0)
        pipe.multi()
        pipe.set("{tx}n", now + 1)

    together(8, lambda: client.transaction(increment, "{tx}n"))
    assert client.get("{tx}n") == "8"
    assert client.delete("{tx}a", "{tx}l", "{tx}n") == 3


def subscriptions(client):
    handled = []
    with client.pubsub() as pubsub:
        pubsub.subscribe("news", handled=lambda message: handled.append(message["data"]))
        pubsub.psubscribe("n*")
        heard = [pubsub.get_message(timeout=5) for _ in range(3)]
        assert [message["type"] for message in heard] == ["subscribe", "subscribe", "psubscribe"], heard
        assert (client.publish("news", "hello"), client.publish("handled", "hi")) == (2, 1)
        # A message to a handler is no message to the caller.
        end = time.monotonic() + 10
        heard = []
        while (len(heard) < 2 or not handled) and time.monotonic() < end:
            heard += [message for message in [pubsub.get_message(timeout=0.1)] if message]
        assert sorted((message["type"], message["data"]) for message in heard) == [
            ("message", "hello"),
            ("pmessage", "hello"),
        ]
        assert handled == ["hi"]
        # Within a transaction a message is counted like any other.
        with client.pipeline() as pipe:
            assert pipe.set("{tx}p", 1).publish("news", "again").delete("{tx}p").execute() == [True, 2, 1]
        assert pubsub.get_message(timeout=5)["data"] == "again"


def locks(client):
    counted = [0]

    def count():
        for _ in range(5):
            with client.lock("lock", timeout=20, sleep=0.002):
                before = counted[0]
                time.sleep(0.001)
                counted[0] = before + 1

    together(6, count)
    assert counted == [30]
    lock = client.lock("lock", timeout=20)
    assert lock.acquire(blocking=False) and not client.lock("lock").acquire(blocking=False)
    assert lock.extend(10) and lock.owned()
    lock.release()


def scripts(client):
    script = client.register_script("return {redis.call('INCRBY', KEYS[1], ARGV[1]), KEYS[1]}")
    # A script that is loaded nowhere, for keys on every node, by themselves and in a pipeline.
    client.script_flush()
    for number in range(20):
        assert script(keys=[f"script{number}"], args=[number]) == [number, f"script{number}"]
    with client.pipeline(transaction=False) as pipe:
        for number in range(20):
            script(keys=[f"script{number}"], args=[1], client=pipe)
        assert pipe.execute() == [[number + 1, f"script{number}"] for number in range(20)]
    assert client.delete(*[f"script{number}" for number in range(20)]) == 20


def blocking(client):
    got = []
    waiting = [threading.Thread(target=lambda: got.append(client.blpop(["{b}list"], timeout=20))) for _ in range(4)]
    [thread.start() for thread in waiting]
    assert client.rpush("{b}list", *"abcd") >= 1
    [thread.join() for thread in waiting]
    assert sorted(tuple(pair) for pair in got) == [("{b}list", letter) for letter in "abcd"], got
    assert client.blpop(["{b}none", "{b}list"], timeout=0.05) is None
    assert client.blmove("{b}list", "{b}other", timeout=0.05) is None
    assert client.bzpopmin("{b}zset", timeout=0.05) is None


def streams(client):
    ids = [client.xadd("stream", {"n": number}) for number in range(10)]
    assert client.xgroup_create("stream", "group", id="0")
    first = only(client.xreadgroup("group", "me", {"stream": ">"}, count=4))
    assert [entry[0] for entry in first] == ids[:4]
    assert client.xack("stream", "group", *ids[:2]) == 2
    assert client.xpending("stream", "group")["pending"] == 2
    claimed = client.xautoclaim("stream", "group", "you", min_idle_time=0)
    assert [entry[0] for entry in claimed[1]] == ids[2:4]
    assert len(only(client.xreadgroup("group", "me", {"stream": ">"}, block=10))) == 6
    assert not client.xreadgroup("group", "me", {"stream": ">"}, block=10)
    assert client.xinfo_groups("stream")[0]["name"] == "group" and client.xlen("stream") == 10
    assert client.delete("stream") == 1


def only(read):
    """The entries of the one stream in a reply: a map of lists of entries in RESP3, a list of pairs in RESP2."""
    [entries] = [batch for batches in read.values() for batch in batches] if isinstance(read, dict) else [read[0][1]]
    return entries


def scans(client):
    keys = {f"scan:{number}" for number in range(300)}
    client.mset({key: 1 for key in keys})
    assert set(client.scan_iter(match="scan:*", count=20)) == keys
    client.hset("scan:hash", mapping={key: 1 for key in keys})
    assert {field for field, _ in client.hscan_iter("scan:hash")} == keys
    assert client.unlink("scan:hash", *keys) == 301


def together(count, work):
    failures = []

    def guarded():
        try:
            work()
        except Exception as error:  # every failure is to be shown
            failures.append(error)

    threads = [threading.Thread(target=guarded) for _ in range(count)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not failures, failures


for version in (2, 3):
    with redis.Redis(host="127.0.0.1", port=port, protocol=version, decode_responses=True) as client:
        for work in (transactions, subscriptions, locks, scripts, blocking, streams, scans):
            work(client)
print("all well with redis-py", redis.__version__)
