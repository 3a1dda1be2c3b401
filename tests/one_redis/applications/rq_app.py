"""RQ: jobs, chains of jobs, retries, schedules, and a callback, by real `rq worker` processes."""

import day


def add(name, a, b):
    day.note(name)
    return a + b


def follow(name, before):
    from rq.job import Job
    from redis import Redis

    day.note(name)
    return Job.fetch(before, connection=Redis(port=day.port)).return_value() + 1


def flaky(name):
    day.note(name + ":tried")
    if day.noted()[name + ":tried"] == 1:
        raise ValueError("the first try fails")
    day.note(name)
    return "at last"


def main():
    from datetime import timedelta

    from redis import Redis
    from rq import Queue, Retry

    for _ in range(2):
        day.worker("-m", "rq.cli", "worker", "--url", day.url, "--quiet", "--with-scheduler", "high", "default")
    connection = Redis(port=day.port)
    queue, high = Queue(connection=connection), Queue("high", connection=connection)
    fair, all_names = set(), set()
    for round in day.rounds():
        expected = {}

        def enqueue(queue, function, *args, **options):
            name = options["job_id"]
            job = day.insist(lambda: queue.enqueue(f"rq_app.{function}", name, *args, **options))
            return job

        jobs = []
        for number in range(8):
            name = f"add-{round}-{number}"
            jobs.append(enqueue(high if number % 2 else queue, "add", number, 1, job_id=name))
            expected[name] = number + 1
        first = jobs[0]
        name = f"follow-{round}"
        jobs.append(enqueue(queue, "follow", first.id, job_id=name, depends_on=first))
        expected[name] = 2
        name = f"flaky-{round}"
        jobs.append(enqueue(queue, "flaky", job_id=name, retry=Retry(max=3)))
        expected[name] = "at last"
        name = f"later-{round}"
        jobs.append(
            day.insist(lambda: queue.enqueue_in(timedelta(seconds=1), "rq_app.add", name, 40, 2, job_id=name))
        )
        expected[name] = 42
        for job in jobs:
            day.until(f"{job.id} to be done", lambda: job.is_finished)
            result = day.insist(lambda: job.return_value())
            assert result == expected[job.id], (job.id, result)
        all_names |= set(expected)
        if not day.is_rough():
            fair |= set(expected)
    noted = day.noted()
    for name in all_names:
        assert noted[name] == 1 if name in fair else noted[name] >= 1, (name, noted[name])
    day.insist(lambda: queue.empty())
    assert day.insist(lambda: connection.keys("rq:queue:default")) == []


if __name__ == "__main__":
    day.live(main)
