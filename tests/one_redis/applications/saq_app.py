"""SAQ: jobs, unique keys, retries, schedules, batches by `map`, and abortion, by a real worker process."""

import asyncio
import time

import day
from saq import Queue

queue = Queue.from_url(day.url)


async def add(ctx, *, name, a, b):
    day.note(name)
    return a + b


async def flaky(ctx, *, name):
    if ctx["job"].attempts == 1:
        raise ValueError("the first try fails")
    day.note(name)
    return "at last"


async def endless(ctx):
    await asyncio.sleep(1000)


settings = {"queue": queue, "functions": [add, flaky, endless], "concurrency": 4}


async def work():
    await queue.connect()
    # What a worker sweeps when it begins is what was taken from the queue a moment ago, too.
    while not await queue.redis.exists(queue.namespace("sweep")):
        await asyncio.sleep(0.02)
    fair = set()
    for round in day.rounds():
        was_rough, own, waited = day.is_rough(), set(), []

        async def begin(function, name, result, **options):
            name = f"{name}-{round}"
            job = await day.attempt_async(lambda: queue.enqueue(function, name=name, key=name, timeout=30, **options))
            if job is not None:
                own.add(name)
                waited.append((job, result))

        for number in range(6):
            await begin("add", f"add{number}", number + 1, a=number, b=1)
        await begin("flaky", "flaky", "at last", retries=2)
        await begin("add", "later", 42, a=40, b=2, scheduled=time.time() + 1)
        again = await day.attempt_async(lambda: queue.enqueue("add", name="x", key=f"later-{round}", a=0, b=0))
        assert again is None or day.is_rough(), "a key is taken once"
        names = [f"map{n}-{round}" for n in range(4)]
        found = await day.attempt_async(
            lambda: queue.map("add", [{"name": name, "a": 1, "b": 1} for name in names], timeout=day.PATIENCE)
        )
        assert found == [2] * 4 or day.is_rough(), found
        own |= set(names) if found else set()
        for job, result in waited:
            await day.attempt_async(lambda: job.refresh(day.PATIENCE))
            assert job.result == result or day.is_rough(), (job, result)
        aborted = await day.attempt_async(lambda: queue.enqueue("endless", timeout=0))
        if aborted:
            await day.attempt_async(lambda: aborted.abort("no more"))
        if not was_rough and not day.is_rough():
            fair |= own
    noted = day.noted()
    assert fair and all(noted[name] == 1 for name in fair), {name: noted[name] for name in fair if noted[name] != 1}
    assert await queue.redis.flushdb()
    assert await queue.count("queued") == 0


def main():
    day.worker("-m", "saq", "saq_app.settings")
    asyncio.run(work())


if __name__ == "__main__":
    day.live(main)
