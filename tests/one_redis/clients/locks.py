"""redis-py's Lock, which loads its scripts when it first needs them, on keys of nodes that live. The port, then the
keys."""

import sys

import redis

port, keys = int(sys.argv[1]), sys.argv[2:]
for protocol in (2, 3):
    client = redis.Redis(port=port, protocol=protocol)
    for key in keys:
        lock = client.lock(key, timeout=20)
        assert lock.acquire(blocking=False)
        assert not client.lock(key).acquire(blocking=False)
        assert lock.extend(10)
        assert lock.reacquire()
        assert lock.owned()
        lock.release()
        assert not lock.locked()
        with client.lock(key, timeout=20):
            pass
