"""Huey: tasks, pipelines, chords, retries, schedules, priorities, locks, rate limits and periodic tasks, by a real consumer."""

import day
from huey import PriorityRedisHuey, crontab
from huey.exceptions import RateLimitExceeded

huey = PriorityRedisHuey("huey_app", url=day.url)


@huey.task()
def add(name, a, b):
    day.note(name)
    return a + b


@huey.task()
def more(name, number):
    day.note(name)
    return number + 1


@huey.task(retries=2, context=True)
def flaky(name, task=None):
    if task.retries == 2:
        raise ValueError("the first try fails")
    day.note(name)
    return "at last"


@huey.task()
@huey.lock_task("one at a time")
def alone(name):
    day.note(name)
    return name


@huey.periodic_task(crontab(minute="*"))
def tick():
    day.note("tick")


def main():
    day.worker("-m", "huey.bin.huey_consumer", "huey_app.huey", "-w", "3", "-q", "-m", "0.2", "-s", "1")
    fair, names = set(), set()
    for round in day.rounds():
        was_rough, own, waited = day.is_rough(), set(), []

        def named(name):
            own.add(f"{name}-{round}")
            return f"{name}-{round}"

        def begin(enqueue, result):
            handle = day.attempt(enqueue)
            if handle is not None:
                waited.append((handle, result))

        for number in range(8):
            name = named(f"add{number}")
            begin(lambda: add(name, number, 1, priority=number), number + 1)
        line = add.s(named("first"), 1, 2).then(more, named("second")).then(more, named("third"))
        begin(lambda: huey.enqueue(line), [3, 4, 5])
        begin(lambda: flaky(named("flaky")), "at last")
        begin(lambda: add.schedule((named("later"), 40, 2), delay=1), 42)
        begin(lambda: alone(named("alone")), f"alone-{round}")
        for handle, result in waited:
            found = day.attempt(lambda: handle.get(blocking=True, timeout=day.PATIENCE), otherwise=result)
            assert found == result, (found, result)
        allowed, limit = 0, huey.rate_limit(f"limited-{round}", limit=3, per=60)
        for _ in range(5):
            try:
                day.attempt(limit.acquire)
                allowed += 1
            except RateLimitExceeded:
                pass
        names |= own
        if not was_rough and not day.is_rough():
            fair |= own
            assert 3 <= allowed <= 5, allowed
    noted = day.noted()
    assert fair and all(noted[name] == 1 for name in fair), {name: noted[name] for name in fair if noted[name] != 1}
    day.insist(huey.flush)
    assert day.insist(huey.pending_count) == day.insist(huey.result_count) == 0


if __name__ == "__main__":
    import huey_app

    # Its tasks are named after their module.
    day.live(huey_app.main)
