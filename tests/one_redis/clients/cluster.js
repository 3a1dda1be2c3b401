// What an application does with node-redis' cluster client and its default settings, to a proxy that is a cluster to it.
'use strict';
const assert = require('node:assert');
const { createCluster } = require('redis');

async function main(port) {
  const client = createCluster({ rootNodes: [{ url: `redis://127.0.0.1:${port}` }] });
  client.on('error', error => { throw error; });
  await client.connect();
  const keys = Array.from({ length: 200 }, (_, number) => `node:${number}`);
  await Promise.all(keys.map(key => client.set(key, key)));
  assert.deepEqual(await Promise.all(keys.map(key => client.get(key))), keys);
  assert.deepEqual(await client.multi().set('{node}t', '1').incr('{node}t').get('{node}t').exec(), ['OK', 2, '2']);
  assert.equal(await client.eval('return redis.call("GET", KEYS[1])', { keys: ['node:7'] }), 'node:7');
  await Promise.all([...keys, '{node}t'].map(key => client.del(key)));
  await client.quit();
  console.log('all well');
}

main(process.argv[2]).catch(error => { console.error(error); process.exit(1); });
