"""Client-side caching of redis-py with its default settings, on a server at the port given.

redis-py offers its cache only where a server calls itself Redis 7.4 or newer, though 6.0 has all that it uses; that check
is told to be content.
"""

import sys
import time

import redis
from redis.cache import CacheConfig, CacheEntryStatus, CacheKey
from redis.connection import CacheProxyConnection

port = int(sys.argv[1])
CacheProxyConnection.MIN_ALLOWED_VERSION = "6.0.0"
CacheProxyConnection.DEFAULT_SERVER_NAME = redis.Redis(port=port, protocol=3).execute_command("HELLO")[b"server"].decode()


def eventually(what, holds):
    end = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < end, what
        time.sleep(0.01)


writer = redis.Redis(port=port)
cached = redis.Redis(port=port, protocol=3, cache_config=CacheConfig())
keys = [f"cached:{number}" for number in range(20)]
for round in range(5):
    for key in keys:
        writer.set(key, f"{key}-{round}")
    for key in keys:
        # A change is told at once, but not before this client looks.
        eventually(f"{key} of round {round}", lambda: cached.get(key) == f"{key}-{round}".encode())
    cache = cached.get_cache()
    held = [cache.get(CacheKey(command="GET", redis_keys=(key,), redis_args=("GET", key))) for key in keys]
    assert all(entry is not None and entry.status == CacheEntryStatus.VALID for entry in held), held

key = keys[0]
before = writer.get(key)
assert [cached.get(key) for _ in range(100)] == [before] * 100
assert cached.mget(keys[:3]) == [writer.get(key) for key in keys[:3]]
writer.delete(key)
eventually("the key to be gone", lambda: cached.get(key) is None)
writer.set(key, "again")
eventually("the key to be back", lambda: cached.get(key) == b"again")
assert [client["redir"] for client in writer.client_list() if client["flags"] == "t"] == ["0"]
assert writer.delete(*keys) == len(keys)
cached.close()
writer.close()
print("all well with redis-py", redis.__version__)
