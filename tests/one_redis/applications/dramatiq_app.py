"""Dramatiq: actors, pipelines, groups, retries, delays, results and rate limits, by a real worker process."""

import day
import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.rate_limits import ConcurrentRateLimiter, WindowRateLimiter
from dramatiq.rate_limits.backends import RedisBackend as RateLimits
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

broker = RedisBroker(url=day.url)
broker.add_middleware(Results(backend=RedisBackend(url=day.url)))
dramatiq.set_broker(broker)
limits = RateLimits(url=day.url)


@dramatiq.actor(store_results=True)
def add(name, a, b):
    day.note(name)
    return a + b


@dramatiq.actor(store_results=True)
def more(name, number):
    day.note(name)
    return number + 1


@dramatiq.actor(store_results=True, min_backoff=50, max_backoff=100)
def flaky(name):
    day.note(name + ":tried")
    if day.noted()[name + ":tried"] == 1:
        raise ValueError("the first try fails")
    day.note(name)
    return "at last"


@dramatiq.actor(store_results=True)
def alone(name):
    with ConcurrentRateLimiter(limits, "alone", limit=1).acquire(raise_on_failure=False) as is_held:
        if not is_held:
            raise dramatiq.errors.Retry(delay=20)
        day.note(name)
        return name


def main():
    day.worker("-m", "dramatiq", "dramatiq_app", "--processes", "1", "--threads", "4")
    fair = set()
    for round in day.rounds():
        was_rough, own, waited = day.is_rough(), set(), []

        def named(name):
            own.add(f"{name}-{round}")
            return f"{name}-{round}"

        def begin(enqueue, result):
            handle = day.attempt(enqueue)
            if handle is not None:
                waited.append((handle, result))

        for number in range(6):
            name = named(f"add{number}")
            begin(lambda: add.send(name, number, 1), number + 1)
        begin(lambda: (add.message(named("first"), 1, 2) | more.message(named("second")) ).run(), None)
        begin(lambda: flaky.send(named("flaky")), "at last")
        begin(lambda: add.send_with_options(args=(named("later"), 40, 2), delay=300), 42)
        for number in range(3):
            name = named(f"alone{number}")
            begin(lambda: alone.send(name), name)
        parts = dramatiq.group([add.message(named(f"part{n}"), n, n) for n in range(4)])
        begin(lambda: parts.run(), [0, 2, 4, 6])
        for handle, result in waited:
            def get():
                if hasattr(handle, "get_results"):
                    return list(handle.get_results(block=True, timeout=day.PATIENCE * 1000))
                return handle.get_result(block=True, timeout=day.PATIENCE * 1000)
            found = day.attempt(get, otherwise=result)
            assert result is None or found == result, (found, result)
        allowed = 0
        for _ in range(5):
            with WindowRateLimiter(limits, f"limited-{round}", limit=3, window=60).acquire(raise_on_failure=False) as may:
                allowed += may
        if not was_rough and not day.is_rough():
            fair |= own
            assert allowed == 3, allowed
    noted = day.noted()
    assert fair and all(noted[name] == 1 for name in fair), {name: noted[name] for name in fair if noted[name] != 1}
    for queue in broker.get_declared_queues():
        day.insist(lambda: broker.flush(queue))


if __name__ == "__main__":
    day.live(main)
