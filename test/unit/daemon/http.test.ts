// SPDX-License-Identifier: Apache-2.0
/* What comes before a job: forms, tokens, limits. With jobs: test/integration/daemon.test.ts. */
import { afterEach, describe, expect, jest, test } from '@jest/globals';
import { once } from 'node:events';
import { type AddressInfo, type Socket, connect } from 'node:net';
import { silentLogger } from '../../../src/base/log.js';
import { Controller, type DaemonStatus } from '../../../src/daemon/controller.js';
import { type HttpOptions, type HttpServer, createHttpServer } from '../../../src/daemon/http.js';
import { ask } from '../../support/http.js';
import { until } from '../../support/until.js';
import { within } from '../linux/support.js';

jest.setTimeout(30_000);

const servers: HttpServer[] = [];
afterEach(async () => {
  for (const one of servers.splice(0)) await one.close();
});

async function serve(options: Partial<HttpOptions> = {}): Promise<{ port: number; controller: Controller }> {
  const nothing = (): void => undefined;
  const controller = new Controller({ log: silentLogger, env: {}, runEnv: {}, onState: nothing, onRunEnd: nothing });
  const http = createHttpServer({ controller, log: silentLogger, ...options });
  servers.push(http);
  http.server.listen(0, '127.0.0.1');
  await once(http.server, 'listening');
  return { port: (http.server.address() as AddressInfo).port, controller };
}

const json = { Accept: 'application/json' };

describe('a request', () => {
  test('for what there is not, or in a form that is not taken, is refused with a reason', async () => {
    const at = await serve();
    for (const [method, path, status, body, reason] of [
      ['GET', '/', 404, '', 'there is no "/"'],
      ['POST', '/constructor', 404, '', 'there is no "/constructor"'],
      ['POST', '/run/', 404, '{}', 'there is no "/run/"'],
      ['GET', '/run', 405, '', '/run takes POST'],
      ['DELETE', '/checkpoint', 405, '', '/checkpoint takes POST'],
      ['POST', '/status', 405, '{}', '/status takes GET, HEAD'],
      ['POST', '/healthz', 405, '', '/healthz takes GET, HEAD'],
      ['POST', '/run', 400, '{', 'it is not JSON'],
      ['POST', '/run', 400, Buffer.from([0x22, 0xff, 0x22]), 'not text in UTF-8'],
      ['POST', '/run', 400, '{"app_args":"x","image_url":3}', 'image_url: expected a string'],
      ['POST', '/run', 413, Buffer.alloc(65_537, ' '), 'over 65536 bytes'],
      ['POST', '/checkpoint', 413, Buffer.alloc(600_000, ' '), 'over 65536 bytes'],
      ['POST', '/checkpoint', 409, '', 'no job runs'],
    ] as const) {
      const said = await ask(at, method, path, { body });
      expect([method, path, said.status, said.headers['content-type']]).toEqual([
        ...[method, path, status, 'text/plain; charset=utf-8'],
      ]);
      expect(said.text).toMatch(/^Error: cannot .*\nTry: .*\n$/u);
      expect(said.text).toContain(reason);
      if (status === 405) expect(said.headers['allow']).toBe(reason.split(' takes ')[1]);
      const asJson = await ask(at, method, path, { body, headers: json });
      expect([asJson.status, asJson.headers['content-type']]).toEqual([status, 'application/json']);
      const { error } = JSON.parse(asJson.text) as { error: { code: string; message: string; reason: string } };
      expect(said.text).toContain(error.message);
      expect(error.reason).toContain(reason.split(': ').at(-1));
    }
  });

  test('is answered in the form that it asks for; a body of just the size that is allowed is read', async () => {
    const at = await serve();
    expect(await ask(at, 'GET', '/healthz')).toMatchObject({ status: 200, text: 'ok\n' });
    expect(await ask(at, 'HEAD', '/healthz?x=1')).toMatchObject({ status: 200, text: '' });
    expect(await ask(at, 'GET', '/healthz', { headers: json })).toMatchObject({ text: '{"ok":true}\n' });
    const status = JSON.parse((await ask(at, 'GET', '/status')).text) as object;
    expect(status).toMatchObject({ state: 'standby', ending: false, pid: process.pid, job: null, lastRun: null });
    const body = Buffer.alloc(65_536, ' ');
    expect(await ask(at, 'POST', '/checkpoint', { body, headers: { 'Content-Type': 'text/x' } })).toMatchObject({
      status: 409,
    });
  });

  test('for a run is refused once the daemon is ending', async () => {
    const at = await serve();
    at.controller.refuseRuns();
    const said = await ask(at, 'POST', '/run', { body: { app_args: 'true', image_url: 'file:/x' } });
    expect([said.status, said.text]).toEqual([409, expect.stringContaining('the daemon is ending')]);
  });
});

describe('with a token', () => {
  test('every request must bring it, but for /healthz', async () => {
    const token = '0123456789abcdef';
    const at = await serve({ token });
    for (const Authorization of [
      '',
      'Bearer',
      `Basic ${token}`,
      'Bearer 0123456789abcdeF',
      `Bearer ${token}0`,
      token,
    ]) {
      for (const path of ['/status', '/nowhere']) {
        const said = await ask(at, 'GET', path, { headers: Authorization === '' ? {} : { Authorization } });
        expect([Authorization, said.status, said.headers['www-authenticate']]).toEqual([Authorization, 401, 'Bearer']);
        expect(said.text).not.toContain(token);
      }
    }
    const body = Buffer.alloc(200_000, ' ');
    expect(await ask(at, 'POST', '/run', { body })).toMatchObject({ status: 401 });
    for (const Authorization of [`Bearer ${token}`, `bearer  ${token}`]) {
      expect(await ask(at, 'GET', '/status', { headers: { Authorization } })).toMatchObject({ status: 200 });
    }
    expect(await ask(at, 'GET', '/healthz')).toMatchObject({ status: 200 });
  });
});

describe('a client that is none', () => {
  async function talk(port: number, text: string): Promise<string> {
    const socket = connect(port, '127.0.0.1');
    let said = '';
    socket.setEncoding('latin1').on('data', (piece: string) => (said += piece));
    socket.on('error', () => undefined);
    socket.write(text);
    await within('the end of the connection', once(socket, 'close'));
    return said;
  }

  test('is sent away: garbage, heads without an end, requests that never come whole', async () => {
    const { port } = await serve({ requestTimeoutMs: 500 });
    expect(await talk(port, 'garbage\r\n\r\n')).toMatch(/^HTTP\/1\.1 400 /);
    expect(await talk(port, `GET /healthz HTTP/1.1\r\nX: ${'x'.repeat(20_000)}`)).toMatch(/^HTTP\/1\.1 431 /);
    expect(await talk(port, 'GET /healthz HTTP/1.1\r\nHost:')).toMatch(/^HTTP\/1\.1 408 /);
    const half = 'POST /run HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{';
    expect(await talk(port, half)).toMatch(/^HTTP\/1\.1 408 /);
    // A body without an end is not read to it.
    const endless = `POST /run HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n${' '.repeat(2_000_000)}`;
    expect(await talk(port, endless)).toMatch(/^HTTP\/1\.1 413 |^$/);
    expect(await ask({ port }, 'GET', '/healthz')).toMatchObject({ status: 200 });
  });
});

describe('the end', () => {
  test('does not wait for answers to a client that hung up while they were made', async () => {
    const asked = deferred();
    const released = deferred();
    const nothing = (): void => undefined;
    const controller = new (class extends Controller {
      override async status(): Promise<DaemonStatus> {
        asked.resolve();
        await released.promise;
        return await super.status();
      }
    })({ log: silentLogger, env: {}, runEnv: {}, onState: nothing, onRunEnd: nothing });
    const answered: string[] = [];
    const log = { ...silentLogger, debug: (line: string) => void answered.push(line) };
    const http = createHttpServer({ controller, log, lastAnswersMs: 600_000 });
    http.server.listen(0, '127.0.0.1');
    await once(http.server, 'listening');
    const taken = once(http.server, 'connection') as Promise<[Socket]>;
    const client = connect((http.server.address() as AddressInfo).port, '127.0.0.1');
    // The second one is answered at once; its answer has to wait behind the first.
    for (const path of ['/status', '/healthz']) client.write(`GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`);
    await within('the requests', asked.promise);
    await until('the second answer', () => answered.some((line) => line.includes('/healthz')), 10_000);
    const [connection] = await taken;
    const gone = once(connection, 'close');
    client.destroy();
    await within('the connection to end', gone);
    released.resolve();
    await within('the server to close', http.close());
    expect(answered.filter((line) => line.includes('/status'))).toHaveLength(1);
  });
});

function deferred(): { readonly promise: Promise<void>; readonly resolve: () => void } {
  let resolve = (): void => undefined;
  const promise = new Promise<void>((done) => (resolve = done));
  return { promise, resolve };
}
