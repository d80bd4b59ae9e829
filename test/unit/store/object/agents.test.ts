// SPDX-License-Identifier: Apache-2.0
import { once } from 'node:events';
import { createServer, get, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { expect, test } from '@jest/globals';
import { createAgents } from '../../../../src/store/object/agents.js';
import { until } from '../../../support/until.js';

test('connections that wait for a request are closed; one that is in use is not', async () => {
  const held: ServerResponse[] = [];
  const server = createServer((asked, answer) => {
    if (asked.url === '/held') held.push(answer);
    else answer.end('done');
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const agents = createAgents({ keepAlive: true });
  const ask = async (path: string): Promise<string> => {
    const request = get({ host: '127.0.0.1', port, path, agent: agents.http });
    const [answer] = (await once(request, 'response')) as [IncomingMessage];
    let text = '';
    for await (const piece of answer as AsyncIterable<Buffer>) text += piece.toString();
    return text;
  };
  try {
    const slow = ask('/held');
    await until('a request to be held', () => held.length === 1);
    await Promise.all([ask('/'), ask('/')]);
    const open = (): number => Object.values(agents.http.freeSockets).flat().length;
    await until('connections to wait', () => open() > 0);
    agents.closeIdle();
    await until('connections to close', () => open() === 0);
    held[0]?.end('late');
    expect(await slow).toBe('late');
    expect(await ask('/')).toBe('done');
  } finally {
    agents.http.destroy();
    server.close();
    server.closeAllConnections();
  }
});
