// What an application does with node-redis and its default settings, to a server on the port given.
'use strict';
const assert = require('node:assert');
const { createClient, WatchError } = require('redis');

async function main(port) {
  const client = createClient({ url: `redis://127.0.0.1:${port}` });
  client.on('error', error => { throw error; });
  await client.connect();
  assert.equal(await client.set('node:a', '1'), 'OK');
  assert.equal(await client.incr('node:a'), 2);
  assert.equal(await client.mSet({ 'node:x': '1', 'node:y': '2', 'node:z': '3' }), 'OK');
  assert.deepEqual(await client.mGet(['node:x', 'node:none', 'node:z']), ['1', null, '3']);
  assert.deepEqual(await client.multi().set('{node}t', '1').incr('{node}t').get('{node}t').exec(), ['OK', 2, '2']);
  assert.equal(await client.del(['node:a', 'node:x', 'node:y', 'node:z', '{node}t']), 5);

  // It keeps cursors in doubles.
  const keys = Array.from({ length: 500 }, (_, number) => `node:scan${number}`);
  await Promise.all(keys.map(key => client.set(key, 'x')));
  const found = new Set();
  for await (const key of client.scanIterator({ MATCH: 'node:scan*', COUNT: 10 })) found.add(key);
  assert.deepEqual([...found].sort(), [...keys].sort());
  assert.equal(await client.unlink(keys), 500);

  const other = client.duplicate();
  await other.connect();
  const heard = new Promise(resolve => other.subscribe('node:news', (message, channel) => resolve([channel, message])).catch(resolve));
  while (await client.publish('node:news', 'hello') === 0) await new Promise(setImmediate);
  assert.deepEqual(await heard, ['node:news', 'hello']);
  await other.unsubscribe('node:news');

  const popped = other.blPop('node:queue', 20);
  await client.rPush('node:queue', 'job');
  assert.deepEqual(await popped, { key: 'node:queue', element: 'job' });
  await other.watch('node:watched');
  await client.set('node:watched', 'x');
  await assert.rejects(other.multi().get('node:watched').exec(), error => error instanceof WatchError);
  assert.deepEqual(await client.eval('return {KEYS[1], ARGV[1]}', { keys: ['node:k'], arguments: ['x'] }), ['node:k', 'x']);
  assert.equal(await client.del('node:watched'), 1);
  await other.quit();
  await client.quit();
  console.log('all well with node-redis');
}

main(process.argv[2]).catch(error => { console.error(error); process.exit(1); });
