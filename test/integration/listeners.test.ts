// SPDX-License-Identifier: Apache-2.0
// A job that listens continues where its port is taken, on another one.
import { once } from 'node:events';
import { createConnection, createServer } from 'node:net';
import { writeFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { withBed, type Identity } from '../support/bed.js';
import { freePorts } from '../support/ports.js';
import { PYTHON } from '../support/stage.js';
import { until } from '../support/until.js';

/** Counts, and tells everybody who connects how far it is. */
const TELLER = `
import os, socket, sys, threading, time
port, stop = int(sys.argv[1]), sys.argv[2]
listener = socket.create_server(("127.0.0.1", port))
n = 0
def serve():
    while True:
        connection, _ = listener.accept()
        connection.sendall(b"at %d" % n)
        connection.close()
threading.Thread(target=serve, daemon=True).start()
while not os.path.exists(stop):
    print(n, flush=True)
    n += 1
    time.sleep(0.05)
print("done", flush=True)
`;

async function ask(port: number): Promise<number> {
  const socket = createConnection(port, '127.0.0.1').setTimeout(10_000, () => socket.destroy(new Error('no answer')));
  let answer = '';
  for await (const piece of socket.setEncoding('utf8')) answer += String(piece);
  return Number(/^at (\d+)$/.exec(answer)?.[1]);
}

for (const identity of ['root', 'user'] as const satisfies readonly Identity[]) {
  test(`as ${identity}: --tcp-listen-remap gives a listener another port`, async () => {
    await withBed(identity, async (bed) => {
      const [taken, other, none] = (await freePorts(3)) as [number, number, number];
      const [image, stop] = [`file:${bed.path('image')}`, bed.path('stop')];
      const command = [PYTHON, bed.write('teller.py', TELLER), String(taken), stop];
      const job = bed.run(await bed.place(), ['--image-url', image], command);
      await job.ready('scratch');
      await job.progresses(3);
      expect(await ask(taken)).toBeGreaterThan(0);
      await job.freeze();

      const occupant = createServer().listen(taken, '127.0.0.1');
      await once(occupant, 'listening');
      try {
        const run = async (...remap: string[]) => bed.run(await bed.place(), ['--image-url', image, ...remap], command);
        const refused = await run();
        expect(await refused.ends()).toMatchObject({ code: 171 });
        expect(refused.stderr).toMatch(/--tcp-listen-remap/);
        const mistaken = await run('--tcp-listen-remap', `${none}:${other}`);
        expect(await mistaken.ends()).toMatchObject({ code: 171 });
        expect(mistaken.stderr).toMatch(/port \d+: nothing in the image listens there/);
        for (const wrong of ['80', '0:80', '80:65536', 'a:b', '1:2,1:3']) {
          const answer = await (await bed.place()).fastfreeze(['run', '--tcp-listen-remap', wrong, '--', 'true']);
          expect(answer).toMatchObject({ code: 2, stderr: expect.stringMatching(/^Error: .*--tcp-listen-remap/) });
        }

        const again = await run('--tcp-listen-remap', `${taken}:${other}`);
        await again.ready('restored');
        const first = await ask(other);
        expect(first).toBeGreaterThan(2);
        await until('it to go on', async () => (await ask(other)) > first);
        writeFileSync(stop, '');
        expect(await again.ends()).toMatchObject({ code: 0 });
      } finally {
        occupant.close();
      }
    });
  }, 120_000);
}

test('several ports, by commas and by repeating the option', async () => {
  await withBed('user', async (bed) => {
    const ports = (await freePorts(6)) as [number, number, number, number, number, number];
    const [first, second, third, ...others] = ports;
    const [url, stop] = [['--image-url', `file:${bed.path('image')}`], bed.path('stop')];
    // Three listeners in one job, each told by its own process.
    const teller = bed.write('teller.py', TELLER);
    const script = 'for port in $3 $4 $5; do "$0" "$1" $port "$2" & done; wait';
    const command = ['sh', '-c', script, PYTHON, teller, stop, ...[first, second, third].map(String)];
    const job = bed.run(await bed.place(), url, command);
    await job.ready('scratch');
    await until('three listeners', async () => (await Promise.all([first, second, third].map(answers))).every(Boolean));
    await job.freeze();
    const remap = ['--tcp-listen-remap', `${first}:${others[0]},${second}:${others[1]}`];
    const again = bed.run(
      await bed.place(),
      [...url, ...remap, '--tcp-listen-remap', `${third}:${others[2]}`],
      command,
    );
    await again.ready('restored');
    for (const port of others) expect(await ask(port)).toBeGreaterThan(0);
    expect(await Promise.all([first, second, third].map(answers))).toEqual([false, false, false]);
    writeFileSync(stop, '');
    expect(await again.ends()).toMatchObject({ code: 0 });
  });
}, 60_000);

async function answers(port: number): Promise<boolean> {
  try {
    return (await ask(port)) >= 0;
  } catch {
    // Nobody listens there.
    return false;
  }
}
