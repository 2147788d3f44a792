// SPDX-License-Identifier: GPL-3.0-or-later
/** What server.js does, seen from outside: real processes, real connections. */
'use strict';

const assert = require('node:assert/strict');
const { spawn } = require('node:child_process');
const { once } = require('node:events');
const http = require('node:http');
const net = require('node:net');
const os = require('node:os');
const path = require('node:path');
const nodeTest = require('node:test');
const { setTimeout: sleep } = require('node:timers/promises');

const ADDRESS = '127.0.0.1';
const OURS = ['PORT', 'BIND_ADDRESS', 'SERVICE_NAME', 'UPSTREAMS', 'UPSTREAM_TIMEOUT_MS', 'SHUTDOWN_GRACE', 'POD_NAME', 'HOSTNAME'];

/** A test that fails, instead of waiting for ever, when an answer does not come. */
function test(name, body) {
  nodeTest(name, { timeout: 30_000 }, body);
}

/** Start server.js with exactly these variables; it need not come up. */
function launch(t, env) {
  const inherited = Object.fromEntries(Object.entries(process.env).filter(([name]) => !OURS.includes(name)));
  const child = spawn(process.execPath, [path.join(__dirname, '..', 'server.js')], { env: { ...inherited, ...env } });
  t.after(() => child.kill('SIGKILL'));
  const app = { child, stdout: '', stderr: '', exit: once(child, 'close') };
  child.stdout.on('data', (chunk) => { app.stdout += chunk; });
  child.stderr.on('data', (chunk) => { app.stderr += chunk; });
  app.log = () => app.stdout.trim().split('\n').map((line) => JSON.parse(line));
  return app;
}

/** Start server.js on a free loopback port and wait until it listens. */
async function start(t, env = {}) {
  const port = await freePort(env.BIND_ADDRESS);
  const bound = { BIND_ADDRESS: ADDRESS, PORT: String(port), POD_NAME: 'pod-0', ...env };
  const app = launch(t, bound);
  app.host = bound.BIND_ADDRESS;
  app.port = Number(bound.PORT);
  app.url = `http://${app.host}:${app.port}`;
  await until(() => app.stdout.includes('"listening"'), () => `no line about listening, stderr: ${app.stderr}`);
  return app;
}

async function freePort(host = ADDRESS) {
  const server = net.createServer().listen(0, host);
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

async function until(condition, message) {
  const end = Date.now() + 10_000;
  while (!condition()) {
    assert.ok(Date.now() < end, message?.() ?? `never true: ${condition}`);
    await sleep(10);
  }
}

/** The listener closes a moment after the signal; until then a connection is accepted, and reset. */
async function refused(app) {
  const end = Date.now() + 10_000;
  let error;
  while (error?.code !== 'ECONNREFUSED') {
    assert.ok(Date.now() < end, 'still accepts connections');
    error = await request(`${app.url}/healthz`).catch((reason) => reason);
  }
}

/** One request on a connection of its own, or of the agent's. */
function request(url, { method = 'GET', headers = {}, agent = false } = {}) {
  return new Promise((resolve, reject) => {
    const req = http.request(url, { method, headers, agent }, async (res) => {
      let body = '';
      res.setEncoding('utf8');
      for await (const chunk of res) body += chunk;
      resolve({ status: res.statusCode, headers: res.headers, body });
    });
    req.on('error', reject);
    req.end();
  });
}

/** A fake upstream in this process; `handler` is a request listener. */
async function upstream(t, handler) {
  const server = http.createServer(handler).listen(0, ADDRESS);
  await once(server, 'listening');
  t.after(() => { server.closeAllConnections(); server.close(); });
  return { server, url: `http://${ADDRESS}:${server.address().port}` };
}

/** An upstream that answers when told to; `arrived` resolves with the first request. */
async function slowUpstream(t) {
  const held = [];
  const { url, server } = await upstream(t, (req, res) => held.push({ req, res }));
  return { url, server, held, release: () => held.forEach(({ res }) => res.end('at last\n')) };
}

async function exitCode(app) {
  const [code, signal] = await Promise.race([app.exit, sleep(15_000, ['still running'], { ref: false })]);
  return code ?? signal;
}

for (const route of ['/', '/service/1', '/deep/er?x=1', '/%zz', '//double']) {
  test(`a leaf greets on ${route}`, async (t) => {
    const app = await start(t, { SERVICE_NAME: 'service 1' });
    const { status, headers, body } = await request(app.url + route);
    assert.equal(status, 200);
    assert.equal(body, 'Hello I am a simple express api service 1\n');
    assert.match(headers['content-type'], /^text\/plain/);
    assert.equal(headers['x-powered-by'], undefined);
    assert.equal(headers.etag, undefined, 'every answer is a whole one');
  });
}

test('other methods than GET and HEAD are refused', async (t) => {
  const app = await start(t);
  const { status, headers, body } = await request(app.url, { method: 'POST' });
  assert.deepEqual([status, headers.allow, body], [405, 'GET, HEAD', 'POST is not supported: use GET\n']);
  assert.equal((await request(app.url, { method: 'HEAD' })).status, 200);
});

for (const [env, expected] of [
  [{ POD_NAME: 'pod-7', HOSTNAME: 'host-7' }, 'pod-7'],
  [{ POD_NAME: '', HOSTNAME: 'host-7' }, 'host-7'],
  [{ POD_NAME: '', HOSTNAME: '' }, os.hostname()],
]) {
  test(`the header hostname is ${expected} with ${JSON.stringify(env)}`, async (t) => {
    const app = await start(t, env);
    const { headers, body } = await request(app.url);
    assert.equal(headers.hostname, expected);
    assert.equal(body, `Hello I am a simple express api ${expected}\n`, 'SERVICE_NAME defaults to it');
  });
}

test('replicas share a port on addresses of their own', async (t) => {
  const first = await start(t, { POD_NAME: 'pod-0' });
  const second = await start(t, { POD_NAME: 'pod-1', BIND_ADDRESS: '127.0.0.2', PORT: String(first.port) });
  const answers = await Promise.all([request(first.url), request(second.url)]);
  assert.deepEqual(answers.map(({ headers }) => headers.hostname), ['pod-0', 'pod-1']);
});

test('a chain of services shows every answer, deeper ones indented, in the order of UPSTREAMS', async (t) => {
  const d = await start(t, { SERVICE_NAME: 'service-d' });
  const c = await start(t, { SERVICE_NAME: 'service-c' });
  const b = await start(t, { SERVICE_NAME: 'service-b', UPSTREAMS: d.url });
  const a = await start(t, { SERVICE_NAME: 'service-a', UPSTREAMS: `${b.url}/, ${c.url}` });
  const { status, body } = await request(`${a.url}/service/1?x=1`, { headers: { 'x-request-id': 'id-1' } });
  assert.equal(status, 200);
  assert.equal(body, [
    'Hello I am a simple express api service-a',
    '  Hello I am a simple express api service-b',
    '    Hello I am a simple express api service-d',
    '  Hello I am a simple express api service-c',
    '',
  ].join('\n'));

  for (const app of [a, b, c, d]) {
    await until(() => app.log().some((line) => line.method));
    const { time, duration_ms: duration, ...line } = app.log().find((entry) => entry.method);
    const service = { [a.url]: 'service-a', [b.url]: 'service-b', [c.url]: 'service-c', [d.url]: 'service-d' }[app.url];
    assert.deepEqual(line, { service, method: 'GET', path: '/service/1?x=1', status: 200, request_id: 'id-1' });
    assert.ok(duration > 0 && Date.parse(time) > 0);
  }
});

test('upstreams are called in parallel, below the path of their base URL', async (t) => {
  const one = await slowUpstream(t);
  const two = await slowUpstream(t);
  const app = await start(t, { SERVICE_NAME: 'a', UPSTREAMS: `${one.url}/b,${two.url}/c/` });
  const answer = request(`${app.url}/x`);
  await until(() => one.held.length && two.held.length);
  assert.deepEqual([one, two].map(({ held }) => held[0].req.url), ['/b/x', '/c/x']);
  one.release();
  two.release();
  assert.equal((await answer).body, 'Hello I am a simple express api a\n  at last\n  at last\n');
});

test('request id and trace headers are passed on, others are not', async (t) => {
  const passed = {
    'x-request-id': 'id-1',
    traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
    tracestate: 'a=b',
    baggage: 'k=v',
    b3: '1-2-1',
    'x-b3-traceid': '1',
    'x-b3-spanid': '2',
    'x-b3-parentspanid': '3',
    'x-b3-sampled': '1',
    'x-b3-flags': '0',
  };
  let seen;
  const { url } = await upstream(t, (req, res) => { seen = req.headers; res.end('ok'); });
  const app = await start(t, { UPSTREAMS: url });
  await request(app.url, { headers: { ...passed, cookie: 'secret', authorization: 'secret', 'x-b3': 'no' } });
  assert.deepEqual(seen, { ...passed, host: new URL(url).host, connection: 'keep-alive' });
});

test('connections to upstreams are kept', async (t) => {
  let connections = 0;
  const { server, url } = await upstream(t, (_req, res) => res.end('ok'));
  server.on('connection', () => { connections += 1; });
  const app = await start(t, { UPSTREAMS: url });
  for (let i = 0; i < 3; i += 1) await request(app.url);
  assert.equal(connections, 1);
});

test('the path cannot change which host is called', async (t) => {
  const paths = [];
  const { url } = await upstream(t, (req, res) => { paths.push(req.url); res.end('ok'); });
  const app = await start(t, { UPSTREAMS: url });
  for (const target of ['//127.0.0.9/x', 'http://127.0.0.9/x', '*']) {
    const socket = net.connect(app.port, app.host);
    socket.write(`GET ${target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`);
    socket.resume();
    await once(socket, 'close');
  }
  assert.deepEqual(paths, ['//127.0.0.9/x', 'http://127.0.0.9/x', '*']);
});

test('an upstream that is not there: 502 names its URL and the reason, the others still show', async (t) => {
  const b = await start(t, { SERVICE_NAME: 'b' });
  const gone = `http://${ADDRESS}:${await freePort()}`;
  const app = await start(t, { SERVICE_NAME: 'a', UPSTREAMS: `${gone},${b.url}` });
  const { status, body } = await request(app.url);
  assert.equal(status, 502);
  assert.equal(body, [
    'Hello I am a simple express api a',
    `  ${gone}: connect ECONNREFUSED ${gone.slice('http://'.length)}`,
    '  Hello I am a simple express api b',
    '',
  ].join('\n'));
});

for (const [status, expected] of [[399, 200], [400, 502], [503, 502]]) {
  test(`an upstream that answers ${status} makes ${expected}`, async (t) => {
    const { url } = await upstream(t, (_req, res) => { res.statusCode = status; res.end('line 1\r\n\nline 2'); });
    const app = await start(t, { SERVICE_NAME: 'a', UPSTREAMS: url });
    const answer = await request(app.url);
    assert.equal(answer.status, expected);
    const shown = expected === 200 ? ['  line 1', '  line 2'] : [`  ${url}: answered ${status}`, '    line 1', '    line 2'];
    assert.equal(answer.body, ['Hello I am a simple express api a', ...shown, ''].join('\n'));
  });
}

for (const [what, handler] of [
  ['does not answer', () => {}],
  ['stops in the middle', (_req, res) => res.write('half')],
]) {
  test(`an upstream that ${what}: 502 within UPSTREAM_TIMEOUT_MS`, async (t) => {
    const { url } = await upstream(t, handler);
    const app = await start(t, { SERVICE_NAME: 'a', UPSTREAMS: url, UPSTREAM_TIMEOUT_MS: '300' });
    const { status, body } = await request(app.url);
    assert.equal(status, 502);
    assert.equal(body, `Hello I am a simple express api a\n  ${url}: no answer within 300 ms\n`);
  });
}

test('an upstream that breaks its answer off: 502', async (t) => {
  const { url } = await upstream(t, (_req, res) => { res.write('half'); setImmediate(() => res.destroy()); });
  const app = await start(t, { SERVICE_NAME: 'a', UPSTREAMS: url });
  const { status, body } = await request(app.url);
  assert.equal(status, 502);
  assert.equal(body, `Hello I am a simple express api a\n  ${url}: aborted\n`);
});

test('when the client goes away, the upstream calls end and the log says so', async (t) => {
  const slow = await slowUpstream(t);
  const app = await start(t, { UPSTREAMS: slow.url, UPSTREAM_TIMEOUT_MS: '60000' });
  const client = net.connect(app.port, app.host);
  client.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
  await until(() => slow.held.length === 1);
  const ended = once(slow.held[0].res, 'close');
  client.destroy();
  await ended;
  await until(() => app.log().some((line) => line.status === 'aborted'));
});

test('/healthz is ok without a call to the upstreams', async (t) => {
  const app = await start(t, { UPSTREAMS: `http://${ADDRESS}:${await freePort()}` });
  const { status, body } = await request(`${app.url}/healthz`);
  assert.deepEqual([status, body], [200, 'ok\n']);
});

test('idle connections are kept longer than Envoy keeps them', async (t) => {
  const app = await start(t);
  const agent = new http.Agent({ keepAlive: true });
  t.after(() => agent.destroy());
  const { headers } = await request(app.url, { agent });
  assert.ok(Number(/timeout=(\d+)/.exec(headers['keep-alive'])[1]) > 3600, headers['keep-alive']);
});

for (const signal of ['SIGTERM', 'SIGINT']) {
  test(`${signal} ends a server with idle and silent connections at once`, async (t) => {
    const app = await start(t, { SHUTDOWN_GRACE: '12' });
    const agent = new http.Agent({ keepAlive: true });
    await request(app.url, { agent });
    const silent = net.connect(app.port, app.host);
    await once(silent, 'connect');
    await request(app.url); // answered after the silent connection was accepted
    const sent = Date.now();
    app.child.kill(signal);
    assert.equal(await exitCode(app), 0);
    assert.ok(Date.now() - sent < 5000, `took ${Date.now() - sent} ms`);
    assert.deepEqual(app.log().filter((line) => line.event).map((line) => line.event), ['listening', 'stopping', 'stopped']);
    assert.equal(app.stderr, '');
  });
}

test('SIGTERM: no new connections, requests under way finish, kept connections close', async (t) => {
  const slow = await slowUpstream(t);
  const app = await start(t, { SERVICE_NAME: 'a', UPSTREAMS: slow.url });
  const agent = new http.Agent({ keepAlive: true });
  const answer = request(app.url, { agent });
  await until(() => slow.held.length === 1);
  const probe = net.connect(app.port, app.host);
  await once(probe, 'connect');
  await request(`${app.url}/healthz`); // answered after the probe's connection was accepted
  await new Promise((resolve) => { probe.write('GET /healthz HTTP/1.1\r\nHost: x\r\n', resolve); });
  await request(`${app.url}/healthz`); // answered after the half request was read

  app.child.kill('SIGTERM');
  await refused(app);
  probe.write('\r\n');
  const [chunk] = await once(probe, 'data');
  assert.match(String(chunk), /^HTTP\/1\.1 503 /);
  assert.match(String(chunk), /^connection: close\r$/im);
  assert.equal(app.child.exitCode, null, 'the server ended with a request under way');

  slow.release();
  const { status, headers, body } = await answer;
  assert.deepEqual([status, body], [200, 'Hello I am a simple express api a\n  at last\n']);
  assert.equal(headers.connection, 'close');
  assert.equal(await exitCode(app), 0);
});

test('the grace time ends a request that does not', async (t) => {
  const slow = await slowUpstream(t);
  const app = await start(t, { UPSTREAMS: slow.url, SHUTDOWN_GRACE: '1', UPSTREAM_TIMEOUT_MS: '60000' });
  const broken = assert.rejects(request(app.url), { code: 'ECONNRESET' });
  await until(() => slow.held.length === 1);
  const sent = Date.now();
  app.child.kill('SIGTERM');
  assert.equal(await exitCode(app), 0);
  assert.ok(Date.now() - sent >= 900 && Date.now() - sent < 5000, `took ${Date.now() - sent} ms`);
  await broken;
});

for (const address of [ADDRESS, '0.0.0.0']) {
  test(`a port in use is an error for ${address}`, async (t) => {
    const { port } = await start(t);
    const app = launch(t, { BIND_ADDRESS: address, PORT: String(port) });
    assert.equal(await exitCode(app), 1);
    assert.equal(app.stdout, '');
    assert.equal(app.stderr, `express: cannot listen on BIND_ADDRESS='${address}' PORT='${port}': `
      + `listen EADDRINUSE: address already in use ${address}:${port}\n`);
  });
}

for (const [name, value, rule] of [
  ['PORT', 'http', 'use a whole number from 1 to 65535'],
  ['PORT', '0', 'use a whole number from 1 to 65535'],
  ['PORT', '65536', 'use a whole number from 1 to 65535'],
  ['PORT', '0x50', 'use a whole number from 1 to 65535'],
  ['UPSTREAM_TIMEOUT_MS', '0', 'use a whole number from 1 to 2147483647'],
  ['SHUTDOWN_GRACE', '-1', 'use a whole number from 0 to 2147483'],
  ['UPSTREAMS', 'service-b:8788', "'service-b:8788' is not a base URL such as http://127.0.0.1:8788"],
  ['UPSTREAMS', 'https://b', "'https://b' is not a base URL such as http://127.0.0.1:8788"],
  ['UPSTREAMS', 'http://b:port', "'http://b:port' is not a base URL such as http://127.0.0.1:8788"],
  ['UPSTREAMS', 'http://u@b', "'http://u@b' is not a base URL such as http://127.0.0.1:8788"],
  ['UPSTREAMS', 'http://b#x', "'http://b#x' is not a base URL such as http://127.0.0.1:8788"],
  ['UPSTREAMS', 'http:b', "'http:b' is not a base URL such as http://127.0.0.1:8788"],
  ['UPSTREAMS', 'http://b,http://c?x', "'http://c?x' is not a base URL such as http://127.0.0.1:8788"],
]) {
  test(`${name}=${value} is an error`, async (t) => {
    const app = launch(t, { [name]: value });
    assert.equal(await exitCode(app), 1);
    assert.deepEqual([app.stdout, app.stderr], ['', `express: ${name}='${value}': ${rule}\n`]);
  });
}
