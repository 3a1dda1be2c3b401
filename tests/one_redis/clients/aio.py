"""What an application does with redis-py's asyncio client and its default settings, to a server on the port given."""

import asyncio
import sys

import redis.asyncio as redis

port = int(sys.argv[1])


async def main():
    for options in ({}, {"protocol": 2}, {"protocol": 3}):
        async with redis.Redis(host="127.0.0.1", port=port, decode_responses=True, **options) as client:
            await everything(client)


async def everything(client):
    async def own(number):
        for step in range(20):
            await client.set(f"aio:{number}", step)
            assert await client.get(f"aio:{number}") == str(step)

    await asyncio.gather(*[own(number) for number in range(50)])
    assert sorted([key async for key in client.scan_iter(match="aio:*")]) == sorted(f"aio:{n}" for n in range(50))
    assert await client.mget([f"aio:{number}" for number in range(50)]) == ["19"] * 50
    assert await client.delete(*[f"aio:{number}" for number in range(50)]) == 50

    async with client.pipeline(transaction=True) as pipe:
        assert await pipe.set("{aio}a", 1).incr("{aio}a").publish("aio:nobody", "x").execute() == [True, 2, 0]
    async with client.pipeline(transaction=False) as pipe:
        for number in range(100):
            pipe.rpush(f"aio:list{number % 7}", number)
        assert len(await pipe.execute()) == 100
    assert await client.delete("{aio}a", *[f"aio:list{number}" for number in range(7)]) == 8

    async with client.pubsub() as pubsub:
        await pubsub.subscribe("aio:news")
        assert (await pubsub.get_message(timeout=10))["type"] == "subscribe"
        assert await client.publish("aio:news", "hello") == 1
        assert (await pubsub.get_message(timeout=10))["data"] == "hello"

    waiting = [asyncio.create_task(client.blpop(["aio:queue"], timeout=20)) for _ in range(10)]
    await client.rpush("aio:queue", *range(10))
    assert sorted(int(value) for _, value in await asyncio.gather(*waiting)) == list(range(10))
    assert await client.blpop(["aio:queue"], timeout=0.05) is None

    counted = 0

    async def count():
        nonlocal counted
        async with client.lock("aio:lock", timeout=20, sleep=0.005):
            before = counted
            await asyncio.sleep(0.001)
            counted = before + 1

    await asyncio.gather(*[count() for _ in range(10)])
    assert counted == 10

    # A request that is given up takes its connection with it, and no reply reaches another.
    try:
        await asyncio.wait_for(client.blpop(["aio:queue"], timeout=20), 0.05)
        raise SystemExit("BLPOP of nothing ended")
    except asyncio.TimeoutError:
        pass
    assert await client.get("aio:none") is None
    assert await client.register_script("return ARGV[1]")(args=["x"]) == "x"


asyncio.run(main())
print("all well with redis.asyncio")
