"""django-redis: Django's cache, sessions in it, locks, patterns, counters, and all of it emptied."""

import threading

import day
import django
from django.conf import settings

settings.configure(
    CACHES={"default": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": day.url}},
    SESSION_ENGINE="django.contrib.sessions.backends.cache",
    INSTALLED_APPS=["django.contrib.sessions"],
)
django.setup()


def main():
    from django.contrib.sessions.backends.cache import SessionStore
    from django.core.cache import cache

    expected = {}
    for round in day.rounds():
        was_rough = day.is_rough()

        def use():
            for number in range(10):
                cache.set(f"page-{number}", {"round": round, "number": number})
                expected[f"page-{number}"] = {"round": round, "number": number}
            assert cache.get_many(expected) == expected
            cache.set_many({f"many-{round}-{number}": number for number in range(10)}, timeout=60)
            assert sorted(cache.keys(f"many-{round}-*")) == [f"many-{round}-{number}" for number in range(10)]
            assert sorted(cache.iter_keys(f"many-{round}-*", itersize=3)) == sorted(cache.keys(f"many-{round}-*"))
            assert 0 < cache.ttl(f"many-{round}-1") <= 60
            assert cache.add(f"added-{round}", 1) and not cache.add(f"added-{round}", 2)
            assert cache.get_or_set(f"made-{round}", lambda: "made", 30) == "made"
            assert cache.touch(f"made-{round}", 90) and cache.persist(f"made-{round}")
            cache.incr_version("page-1")
            assert cache.get("page-1") is None and cache.get("page-1", version=2) == expected.pop("page-1")
            assert cache.delete_pattern(f"many-{round}-*") == 10 and cache.keys(f"many-{round}-*") == []
            session = SessionStore()
            session["who"] = f"user {round}"
            session.save()
            assert SessionStore(session.session_key)["who"] == f"user {round}"
            session.flush()
            assert not SessionStore().exists(session.session_key or "none")

        day.attempt(use)
        count(cache, round)
        if was_rough or day.is_rough():
            day.insist(cache.clear)
            expected.clear()
    day.insist(cache.clear)
    assert day.insist(lambda: cache.keys("*")) == []


def count(cache, round):
    """Four threads count under a lock, and by an atomic increment: nothing is lost."""
    day.insist(lambda: cache.set_many({f"locked-{round}": 0, f"atomic-{round}": 0}))
    errors = []

    def worker():
        for _ in range(5):
            def step():
                with cache.lock(f"lock-{round}", timeout=20):
                    cache.set(f"locked-{round}", cache.get(f"locked-{round}") + 1)
                cache.incr(f"atomic-{round}")

            try:
                day.attempt(step)
            except Exception as error:
                errors.append(error)

    threads = [threading.Thread(target=worker) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    if not day.is_rough():
        assert not errors, errors
        assert cache.get_many([f"locked-{round}", f"atomic-{round}"]) == {f"locked-{round}": 20, f"atomic-{round}": 20}


if __name__ == "__main__":
    day.live(main)
