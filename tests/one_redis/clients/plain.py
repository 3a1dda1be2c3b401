"""What an application does with redis-py and its default settings, to a server on the port given, or at a URL."""

import sys
import threading

import redis

port = int(sys.argv[1])


def connect(**options):
    if len(sys.argv) > 2:
        return redis.Redis.from_url(sys.argv[2], **options)
    return redis.Redis(host="127.0.0.1", port=port, **options)



for options in ({}, {"protocol": 2}, {"protocol": 3}, {"decode_responses": True}):
    client = connect(**options)
    text = (lambda value: value) if options.get("decode_responses") else (lambda value: value.encode())
    assert client.ping() is True
    assert client.set("py:a", "1") is True
    assert client.get("py:a") == text("1")
    assert client.incr("py:a", 41) == 42
    assert client.mset({f"py:m{number}": number for number in range(50)}) is True
    assert client.mget([f"py:m{number}" for number in range(50)]) == [text(str(number)) for number in range(50)]
    assert client.delete(*[f"py:m{number}" for number in range(50)]) == 50
    assert client.hset("py:h", mapping={"a": 1, "b": 2}) == 2
    assert client.hgetall("py:h") == {text("a"): text("1"), text("b"): text("2")}
    assert client.zadd("py:z", {"a": 1.5, "b": 2}) == 2
    assert [tuple(pair) for pair in client.zrange("py:z", 0, -1, withscores=True)] == [(text("a"), 1.5), (text("b"), 2.0)]
    assert client.sadd("py:s", "a", "b") == 2
    assert client.smembers("py:s") == {text("a"), text("b")}
    assert set(client.scan_iter(match="py:*", count=5)) >= {text("py:a"), text("py:h"), text("py:z")}
    assert client.eval("return {KEYS[1], ARGV[1]}", 1, "py:a", "x") == [text("py:a"), text("x")]
    script = client.register_script("return redis.call('GET', KEYS[1])")
    assert script(keys=["py:a"]) == text("42")
    with client.pipeline(transaction=False) as pipe:
        for number in range(200):
            pipe.set(f"py:p{number}", number)
            pipe.get(f"py:p{number}")
        replies = pipe.execute()
    assert replies == [reply for number in range(200) for reply in (True, text(str(number)))]
    try:
        client.incr("py:h")
        raise SystemExit("INCR of a hash succeeded")
    except redis.ResponseError as error:
        assert "wrong kind of value" in str(error), error
    assert client.info("server")["redis_mode"] == "standalone"
    assert client.dbsize() > 0
    client.client_setname("py")
    assert client.client_getname() in ("py", b"py", None)
    assert client.delete("py:a", "py:h", "py:z", "py:s", *[f"py:p{number}" for number in range(200)]) == 204
    client.close()

failures = []
pool = connect(decode_responses=True)


def work(name):
    try:
        for number in range(100):
            pool.set(f"py:t:{name}", f"{name}-{number}")
            assert pool.get(f"py:t:{name}") == f"{name}-{number}"
    except Exception as error:  # every failure is to be shown
        failures.append(error)


threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert not failures, failures
pool.close()
print("all well with redis-py", redis.__version__)
