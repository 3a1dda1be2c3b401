"""Real libraries with their default settings and, where they use several keys at once, one hash tag in their prefix:
job queues (Celery, BullMQ, Huey), a cache (cachelib). The server is on the port given, the library's name follows."""

import asyncio
import logging
import sys

port, name = int(sys.argv[1]), sys.argv[2]
url = f"redis://127.0.0.1:{port}/0"


def celery():
    from celery import Celery
    from celery.contrib.testing.worker import start_worker

    app = Celery("jobs", broker=url, backend=url)
    app.conf.broker_transport_options = {"global_keyprefix": "{celery}."}
    app.conf.result_backend_transport_options = {"global_keyprefix": "{celery}."}

    @app.task(name="add")
    def add(a, b):
        return a + b

    with start_worker(app, pool="threads", concurrency=2, perform_ping_check=False, loglevel="ERROR"):
        results = [add.delay(number, 1) for number in range(20)]
        assert [result.get(timeout=30) for result in results] == list(range(1, 21))
        assert add.apply_async((2, 2), countdown=0.5).get(timeout=30) == 4


def bullmq():
    from bullmq import Queue, Worker

    async def main():
        options = {"connection": url, "prefix": "{bull}"}
        queue, done, all_done = Queue("jobs", options), [], asyncio.Event()

        async def process(job, token):
            done.append(job.data["n"])
            if len(done) == 12:
                all_done.set()
            return job.data["n"]

        worker = Worker("jobs", process, {**options, "concurrency": 3})
        for number in range(10):
            await queue.add("plain", {"n": number})
        await queue.add("delayed", {"n": 10}, {"delay": 300})
        await queue.add("urgent", {"n": 11}, {"priority": 3})
        await asyncio.wait_for(all_done.wait(), 30)
        assert sorted(done) == list(range(12)), done
        while (await queue.getJobCounts("completed"))["completed"] < 12:
            await asyncio.sleep(0.02)
        # Else it may wait for a BZPOPMIN of 5 s, for which redis-py waits 5 s itself, then asks again, several times.
        await worker.close(force=True)
        await queue.close()

    asyncio.run(asyncio.wait_for(main(), 45))


def huey():
    from huey import RedisHuey

    jobs = RedisHuey("jobs", url=url)

    @jobs.task()
    def add(a, b):
        return a + b

    consumer = jobs.create_consumer(workers=2, check_worker_health=False, initial_delay=0.02, max_delay=0.1)
    consumer.start()
    results = [add(number, 1) for number in range(20)]
    assert [result.get(blocking=True, timeout=30) for result in results] == list(range(1, 21))
    assert add.schedule((2, 2), delay=1).get(blocking=True, timeout=30) == 4
    consumer.stop()


def cachelib():
    from cachelib import RedisCache

    cache = RedisCache(host="127.0.0.1", port=port, key_prefix="cache:")
    assert cache.set("a", {"deep": [1, 2]}) and cache.get("a") == {"deep": [1, 2]}
    assert cache.set_many({"b": 2, "c": "three"}) and cache.get_many("a", "b", "none")[1:] == [2, None]
    assert cache.inc("n", 2) == 2 and cache.add("a", 1) is False and cache.has("c")
    assert len(cache.delete_many("a", "b")) == 2 and cache.get("a") is None
    assert cache.clear() and cache.get("c") is None


logging.disable(logging.CRITICAL)
{"celery": celery, "bullmq": bullmq, "huey": huey, "cachelib": cachelib}[name]()
print("all well with", name)
