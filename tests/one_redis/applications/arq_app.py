"""arq: jobs, unique jobs, retries, deferred jobs and aborting, by a real worker process."""

import asyncio

import day
from arq import Retry, create_pool
from arq.connections import RedisSettings


async def add(ctx, name, a, b):
    day.note(name)
    return a + b


async def flaky(ctx, name):
    if ctx["job_try"] == 1:
        raise Retry(defer=0.1)
    day.note(name)
    return "at last"


async def endless(ctx, name):
    await asyncio.sleep(1000)


class WorkerSettings:
    functions = [add, flaky, endless]
    redis_settings = RedisSettings(port=day.port)
    poll_delay = 0.1
    allow_abort_jobs = True


async def work():
    pool = await create_pool(RedisSettings(port=day.port))
    fair = set()
    for round in day.rounds():
        was_rough, own, waited = day.is_rough(), set(), []

        async def begin(function, name, *args, result, **options):
            name = f"{name}-{round}"
            def enqueue():
                return day.attempt_async(lambda: pool.enqueue_job(function, name, *args, _job_id=name, **options))

            # A transaction that is given up since its key may have been touched, as in a fail-over, is a duplicate to arq.
            handle = await enqueue() or await enqueue()
            if handle is not None:
                own.add(name)
                waited.append((handle, result))
            return handle

        for number in range(8):
            await begin("add", f"add{number}", number, 1, result=number + 1)
        await begin("flaky", "flaky", result="at last")
        await begin("add", "later", 40, 2, result=42, _defer_by=0.5)
        again = await day.attempt_async(lambda: pool.enqueue_job("add", f"add0-{round}", 7, 7, _job_id=f"add0-{round}"))
        assert again is None or day.is_rough(), "an id is taken once"
        to_abort = await day.attempt_async(lambda: pool.enqueue_job("endless", "endless"))
        for handle, result in waited:
            found = await day.attempt_async(lambda: handle.result(timeout=day.PATIENCE, poll_delay=0.05), otherwise=result)
            assert found == result, (found, result)
        if to_abort:
            aborted = await day.attempt_async(lambda: to_abort.abort(timeout=day.PATIENCE, poll_delay=0.05), otherwise=True)
            assert aborted or day.is_rough()
        if not was_rough and not day.is_rough():
            fair |= own
    noted = day.noted()
    assert fair and all(noted[name] == 1 for name in fair), {name: noted[name] for name in fair if noted[name] != 1}
    await pool.flushdb()
    assert await pool.all_job_results() == []


def main():
    day.worker("-m", "arq", "arq_app.WorkerSettings")
    asyncio.run(work())


if __name__ == "__main__":
    day.live(main)
