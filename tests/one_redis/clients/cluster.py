"""What an application does with redis-py's cluster client and its default settings, to a proxy that is a cluster to it: on the
second port given."""

import asyncio
import sys

from redis.asyncio.cluster import RedisCluster as AsyncCluster
from redis.cluster import RedisCluster

port = int(sys.argv[2])


def everything(**options):
    with RedisCluster(host="127.0.0.1", port=port, decode_responses=True, **options) as client:
        nodes = client.get_nodes()
        assert [(node.port, node.server_type) for node in nodes] == [(port, "primary")], nodes
        for number in range(200):
            assert client.set(f"py:{number}", number)
        assert [client.get(f"py:{number}") for number in range(200)] == [str(number) for number in range(200)]
        assert client.mget_nonatomic([f"py:{number}" for number in range(50)]) == [str(number) for number in range(50)]
        assert len(list(client.scan_iter(match="py:*"))) == 200
        pipe = client.pipeline()
        for number in range(200):
            pipe.incr(f"py:{number}")
        assert pipe.execute() == list(range(1, 201))
        assert client.eval("return redis.call('GET', KEYS[1])", 1, "py:7") == "8"
        assert client.cluster_keyslot("foo") == 12182
        assert client.cluster_info()["cluster_state"] == "ok"
        assert len(client.cluster_nodes()) == 1 and client.info()["cluster_enabled"] == 1
        pubsub = client.pubsub()
        pubsub.subscribe("py:news")
        assert pubsub.get_message(timeout=10)["type"] == "subscribe"
        assert client.publish("py:news", "hello") == 1
        assert pubsub.get_message(timeout=10)["data"] == "hello"
        pubsub.close()
        assert sum(client.delete(f"py:{number}") for number in range(200)) == 200


async def asynchronously():
    async with AsyncCluster(host="127.0.0.1", port=port, decode_responses=True) as client:
        await asyncio.gather(*[client.set(f"aio:{number}", number) for number in range(50)])
        assert await client.get("aio:49") == "49"
        assert await client.delete(*[f"aio:{number}" for number in range(1)]) == 1


for options in ({}, {"protocol": 3}, {"read_from_replicas": True}):
    everything(**options)
asyncio.run(asynchronously())
print("all well")
