// SPDX-License-Identifier: GPL-3.0-or-later
/**
 * A small HTTP service: it greets, and if it has upstreams it calls them all and shows their answers below its own.
 *
 * Everything is configured by environment variables, see README.md.
 */
'use strict';

const express = require('express');
const http = require('node:http');
const os = require('node:os');

// Longer than Envoy keeps an idle connection to us (3600 s), so that the proxy closes first. With Node's default of
// 5 s the service closes connections on which the proxy is just sending a request, and that request is reset.
const KEEP_ALIVE_TIMEOUT_MS = 3_700_000;

// Shorter than any proxy or server keeps an idle connection from us, for the same reason the other way round.
const UPSTREAM_IDLE_TIMEOUT_MS = 60_000;

// What a request carries from hop to hop, so that logs and traces of all hops can be joined.
const PASSED_ON = /^(x-request-id|traceparent|tracestate|baggage|b3|x-b3-.+)$/;

const LONGEST_TIMER_MS = 2 ** 31 - 1;

/** The server cannot start; the message names the variable and its value. */
class StartError extends Error {}

/** Read and check the environment. An empty variable counts as unset. Throws StartError. */
function readSettings(env) {
  const hostname = env.POD_NAME || env.HOSTNAME || os.hostname();
  const maxSeconds = Math.floor(LONGEST_TIMER_MS / 1000);
  return {
    bindAddress: env.BIND_ADDRESS || '0.0.0.0',
    port: integer('PORT', env.PORT || '8080', 1, 65535),
    hostname,
    serviceName: env.SERVICE_NAME || hostname,
    upstreams: baseUrls('UPSTREAMS', env.UPSTREAMS || ''),
    upstreamTimeoutMs: integer('UPSTREAM_TIMEOUT_MS', env.UPSTREAM_TIMEOUT_MS || '5000', 1, LONGEST_TIMER_MS),
    shutdownGraceMs: 1000 * integer('SHUTDOWN_GRACE', env.SHUTDOWN_GRACE || '10', 0, maxSeconds),
  };
}

function integer(name, text, min, max) {
  const value = Number(text);
  if (!/^[0-9]+$/.test(text) || value < min || value > max) {
    throw new StartError(`${name}='${text}': use a whole number from ${min} to ${max}`);
  }
  return value;
}

function baseUrls(name, text) {
  const parts = text.split(',').map((part) => part.trim()).filter(Boolean);
  for (const part of parts) {
    const url = /^http:\/\//i.test(part) && URL.canParse(part) ? new URL(part) : null;
    if (!url || url.search || url.hash || url.username) {
      throw new StartError(`${name}='${text}': '${part}' is not a base URL such as http://127.0.0.1:8788`);
    }
  }
  return parts;
}

/**
 * Call one upstream with the path of the request.
 * Resolves to the lines to show and whether the call went well; never rejects.
 */
async function callUpstream(upstream, req, { agent, signal, timeoutMs }) {
  try {
    const { status, body } = await get(upstream, req, { agent, signal });
    const lines = body.split(/\r?\n/).filter((line) => line !== '');
    if (status < 400) return { ok: true, lines };
    return { ok: false, lines: [`${upstream}: answered ${status}`, ...lines.map(indent)] };
  } catch (error) {
    const reason = error.name === 'AbortError' ? `no answer within ${timeoutMs} ms` : error.message || error.code;
    return { ok: false, lines: [`${upstream}: ${reason}`] };
  }
}

/** One GET over a kept-alive connection. Resolves to status and body, rejects if no whole answer came in time. */
function get(upstream, req, options) {
  const headers = Object.fromEntries(Object.entries(req.headers).filter(([name]) => PASSED_ON.test(name)));
  // As a path, not as part of the URL: what a client asks for must never change which host is called.
  const path = new URL(upstream).pathname.replace(/\/$/, '') + req.originalUrl;
  return new Promise((resolve, reject) => {
    const call = http.get(upstream, { ...options, headers, path }, (res) => {
      let body = '';
      res.setEncoding('utf8');
      res.on('data', (chunk) => { body += chunk; });
      res.on('end', () => resolve({ status: res.statusCode, body }));
      res.on('error', reject);
    });
    call.on('error', reject);
  });
}

/** A signal that ends the upstream calls when their time is over or nobody waits for the answer any more. */
function deadline(res, timeoutMs) {
  const controller = new AbortController();
  const timer = setTimeout(() => controller.abort(), timeoutMs);
  res.on('close', () => {
    clearTimeout(timer);
    if (!res.writableFinished) controller.abort();
  });
  return controller.signal;
}

function indent(line) {
  return `  ${line}`;
}

/** One line of JSON on stdout. */
function log(entry) {
  console.log(JSON.stringify({ time: new Date().toISOString(), ...entry }));
}

/** The service as an Express application. `state.stopping` turns true when the process is to end. */
function buildApp(settings, state, agent) {
  const greeting = `Hello I am a simple express api ${settings.serviceName}`;
  const app = express();
  app.disable('x-powered-by');
  app.disable('etag');

  function answer(res, status, lines) {
    if (state.stopping) res.set('Connection', 'close');
    res.status(status).type('text/plain').send(`${lines.join('\n')}\n`);
  }

  app.use((req, res, next) => {
    const start = process.hrtime.bigint();
    res.on('close', () => log({
      service: settings.serviceName,
      method: req.method,
      path: req.originalUrl,
      status: res.writableFinished ? res.statusCode : 'aborted',
      request_id: req.get('x-request-id') ?? null,
      duration_ms: Number((process.hrtime.bigint() - start) / 1000n) / 1000,
    }));
    res.set('hostname', settings.hostname);
    next();
  });

  app.get('/healthz', (_req, res) => answer(res, state.stopping ? 503 : 200, [state.stopping ? 'stopping' : 'ok']));

  app.get(/.*/, async (req, res) => {
    const timeoutMs = settings.upstreamTimeoutMs;
    const call = { agent, timeoutMs, signal: deadline(res, timeoutMs) };
    const results = await Promise.all(settings.upstreams.map((upstream) => callUpstream(upstream, req, call)));
    const lines = results.flatMap((result) => result.lines.map(indent));
    answer(res, results.every((result) => result.ok) ? 200 : 502, [greeting, ...lines]);
  });

  app.use((req, res) => {
    res.set('Allow', 'GET, HEAD');
    answer(res, 405, [`${req.method} is not supported: use GET`]);
  });
  return app;
}

/** Serve until SIGTERM or SIGINT, then let the requests under way finish within the grace time. */
function serve(settings) {
  const state = { stopping: false };
  const agent = new http.Agent({ keepAlive: true, timeout: UPSTREAM_IDLE_TIMEOUT_MS });
  const server = http.createServer({ keepAliveTimeout: KEEP_ALIVE_TIMEOUT_MS }, buildApp(settings, state, agent));

  const sockets = new Set();
  server.on('connection', (socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
  });

  function stop(signal) {
    if (state.stopping) return;
    state.stopping = true;
    log({ service: settings.serviceName, event: 'stopping', signal });
    // Closes idle connections too; the process ends by itself when nothing is left to do.
    server.close(() => log({ service: settings.serviceName, event: 'stopped' }));
    for (const socket of sockets) {
      if (socket.bytesRead === 0) socket.destroy(); // never sent a request: to Node that is not idle
    }
    setTimeout(() => server.closeAllConnections(), settings.shutdownGraceMs).unref();
  }

  server.on('error', (error) => {
    fail(`cannot listen on BIND_ADDRESS='${settings.bindAddress}' PORT='${settings.port}': ${error.message}`);
  });
  server.listen({ host: settings.bindAddress, port: settings.port, exclusive: true }, () => {
    const { address, port } = server.address();
    log({ service: settings.serviceName, event: 'listening', address, port, upstreams: settings.upstreams });
  });
  process.on('SIGTERM', stop);
  process.on('SIGINT', stop);
}

function fail(message) {
  console.error(`express: ${message}`);
  process.exitCode = 1;
}

function main() {
  try {
    serve(readSettings(process.env));
  } catch (error) {
    if (!(error instanceof StartError)) throw error;
    fail(error.message);
  }
}

main();
