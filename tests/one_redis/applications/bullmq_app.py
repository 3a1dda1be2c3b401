"""BullMQ for Python: jobs, priorities, delays, retries, flows of parents and children, progress and cleaning."""

import asyncio

import day
from bullmq import FlowProducer, Queue, Worker


async def main_async():
    options = {"connection": day.url}
    queue, flows = Queue("jobs", options), FlowProducer(options)
    results, tried = {}, set()

    async def process(job, token):
        name = job.data["name"]
        if name.startswith("flaky") and name not in tried:
            tried.add(name)
            raise ValueError("the first try fails")
        await job.updateProgress(50)
        day.note(name)
        return name

    worker = Worker("jobs", process, {**options, "concurrency": 3})
    worker.on("completed", lambda job, result: results.__setitem__(job.data["name"], result))
    fair = set()
    for round in day.rounds():
        was_rough, own = day.is_rough(), set()

        async def add(name, **extra):
            name = f"{name}-{round}"
            try:
                await queue.add("work", {"name": name}, {"jobId": name, **extra})
                own.add(name)
            except Exception:
                if not day.is_rough():
                    raise

        for number in range(6):
            await add(f"plain{number}")
        await add("urgent", priority=3)
        await add("later", delay=300)
        await add("flaky", attempts=3, backoff={"type": "fixed", "delay": 50})
        try:
            await flows.add({
                "name": "parent",
                "queueName": "jobs",
                "data": {"name": f"parent-{round}"},
                "children": [{"name": "child", "queueName": "jobs", "data": {"name": f"child{n}-{round}"}} for n in range(3)],
            })
            own |= {f"parent-{round}"} | {f"child{n}-{round}" for n in range(3)}
        except Exception:
            if not day.is_rough():
                raise
        end = asyncio.get_running_loop().time() + day.PATIENCE
        while not own <= set(results):
            assert asyncio.get_running_loop().time() < end, f"not done: {own - set(results)}"
            await asyncio.sleep(0.02)
        if not was_rough and not day.is_rough():
            fair |= own
            counts = await queue.getJobCounts("wait", "active", "delayed", "failed", "waiting-children")
            # The event comes when the job is done, and its worker may be asking for the next.
            assert counts["delayed"] == counts["failed"] == counts["waiting-children"] == 0, counts
    noted = day.noted()
    assert fair and all(noted[name] == 1 for name in fair), {name: noted[name] for name in fair if noted[name] != 1}
    await worker.close(force=True)
    await queue.obliterate(force=True)


def main():
    asyncio.run(main_async())


if __name__ == "__main__":
    day.live(main)
