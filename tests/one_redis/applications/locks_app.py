"""python-redis-lock: who holds a lock holds it alone; waiting, extending, renewing and resetting."""

import threading

import day
import redis_lock
from redis import StrictRedis


def main():
    for round in day.rounds():
        was_rough, inside, most, entries, errors = day.is_rough(), [], [], [], []

        def worker(number):
            connection = StrictRedis(port=day.port)
            for _ in range(4):
                def step():
                    with redis_lock.Lock(connection, f"door-{round}", expire=5, id=f"{number}"):
                        inside.append(number)
                        most.append(len(inside))
                        inside.remove(number)
                        entries.append(number)

                try:
                    day.attempt(step)
                except Exception as error:
                    errors.append(error)

        threads = [threading.Thread(target=worker, args=(number,)) for number in range(4)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        # Who was told an error when the door was shut behind it waits for the lock's end.
        assert max(most, default=1) == 1, most
        if was_rough or day.is_rough():
            day.insist(lambda: redis_lock.reset_all(StrictRedis(port=day.port)))
            continue
        assert not errors and len(entries) == 16, (errors, entries)
        connection = StrictRedis(port=day.port)
        lock = redis_lock.Lock(connection, f"own-{round}", expire=2, auto_renewal=True)
        assert day.insist(lambda: lock.acquire(blocking=False))
        other = redis_lock.Lock(connection, f"own-{round}", expire=2)
        assert not day.attempt(lambda: other.acquire(blocking=False), otherwise=False)
        assert not day.attempt(lambda: other.acquire(timeout=1), otherwise=False)
        day.attempt(lambda: lock.extend(5))
        day.attempt(lock.release)
        assert day.is_rough() or other.acquire(timeout=1)
        day.attempt(lambda: other.release())
    day.insist(lambda: redis_lock.reset_all(StrictRedis(port=day.port)))
    assert not [key for key in day.insist(lambda: StrictRedis(port=day.port).keys("lock:*"))]


if __name__ == "__main__":
    day.live(main)
