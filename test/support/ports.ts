// SPDX-License-Identifier: Apache-2.0
import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type Server } from 'node:net';

/** A port that nobody has right now. */
export async function freePort(): Promise<number> {
  const [port = 0] = await freePorts(1);
  return port;
}

/** As many, all different. */
export async function freePorts(count: number): Promise<number[]> {
  const held = new Map<number, Server>();
  for (let tries = 0; held.size < count; tries += 1) {
    if (tries > 1_000) throw new Error('no port can be had on 127.0.0.1');
    // Below those that the kernel gives to whoever asks for any: a server may take seconds until it listens.
    const port = randomInt(10_240, 32_768);
    const probe = createServer().listen(port, '127.0.0.1');
    const isFree = await once(probe, 'listening').then(
      () => true,
      () => false,
    );
    if (isFree) held.set(port, probe);
  }
  await Promise.all([...held.values()].map((probe) => once(probe.close(), 'close')));
  return [...held.keys()];
}
