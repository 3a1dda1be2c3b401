"""Celery with Redis as broker and result backend: tasks, chains, chords, groups, retries, countdowns, rate limits, by a real worker."""

import day
from celery import Celery, chain, chord, group

app = Celery("celery_app", broker=day.url, backend=day.url)


@app.task
def add(name, a, b):
    day.note(name)
    return a + b


@app.task
def more(number, name):
    day.note(name)
    return number + 1


@app.task
def total(numbers, name):
    day.note(name)
    return sum(numbers)


@app.task(bind=True)
def flaky(self, name):
    if self.request.retries < 1:
        raise self.retry(countdown=0.1)
    day.note(name)
    return "at last"


@app.task(rate_limit="50/s")
def limited(name):
    day.note(name)


def main():
    day.worker("-m", "celery", "-A", "celery_app", "worker", "--pool", "threads", "--concurrency", "4", "--loglevel", "ERROR")
    fair, names = set(), set()
    for round in day.rounds():
        was_rough, own = day.is_rough(), set()

        def named(name):
            own.add(f"{name}-{round}")
            return f"{name}-{round}"

        def begins():
            yield chain(add.s(named("first"), 1, 2), more.s(named("second")), more.s(named("third"))), 5
            yield chord([add.s(named(f"part{n}"), n, n) for n in range(5)], total.s(named("total"))), 20
            yield flaky.s(named("flaky")), "at last"
            yield add.s(named("later"), 40, 2).set(countdown=0.5), 42
            yield group(add.s(named(f"group{n}"), n, 1) for n in range(5)), [1, 2, 3, 4, 5]
            yield group(limited.s(named(f"limited{n}")) for n in range(5)), [None] * 5

        waited = [(day.attempt(work.apply_async), result) for work, result in begins()]
        for handle, result in waited:
            if handle is not None:
                found = day.attempt(lambda: handle.get(timeout=day.PATIENCE), otherwise=result)
                assert found == result, (handle, found, result)
                day.attempt(handle.forget)
        names |= own
        if not was_rough and not day.is_rough():
            fair |= own
    noted = day.noted()
    assert fair and all(noted[name] == 1 for name in fair), {name: noted[name] for name in fair if noted[name] != 1}
    assert day.insist(app.control.purge) == 0, "nothing is left"


if __name__ == "__main__":
    day.live(main)
