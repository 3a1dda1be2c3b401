"""limits: every strategy of rate limiting, from several threads at once: exactly as many pass as may."""

import threading

import day
from limits import parse
from limits.storage import storage_from_string
from limits.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter, SlidingWindowCounterRateLimiter

STRATEGIES = FixedWindowRateLimiter, MovingWindowRateLimiter, SlidingWindowCounterRateLimiter


def main():
    storage = storage_from_string(day.url)
    assert storage.check()
    for round in day.rounds():
        was_rough = day.is_rough()
        for strategy in STRATEGIES:
            limiter, limit, passed, errors = strategy(storage), parse("10 per hour"), [], []

            def visit(number):
                for _ in range(6):
                    try:
                        if day.attempt(lambda: limiter.hit(limit, strategy.__name__, f"visitor-{round}")):
                            passed.append(number)
                    except Exception as error:
                        errors.append(error)

            threads = [threading.Thread(target=visit, args=(number,)) for number in range(4)]
            [thread.start() for thread in threads]
            [thread.join() for thread in threads]
            if was_rough or day.is_rough():
                continue
            assert not errors, errors
            assert len(passed) == 10, (strategy, len(passed))

            def look():
                who = strategy.__name__, f"visitor-{round}"
                assert not limiter.test(limit, *who)
                assert limiter.get_window_stats(limit, *who).remaining == 0
                limiter.clear(limit, *who)
                assert limiter.hit(limit, *who, cost=10)
                assert not limiter.hit(limit, *who)

            day.attempt(look)
    assert day.insist(storage.reset) is not None


if __name__ == "__main__":
    day.live(main)
