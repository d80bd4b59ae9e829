// SPDX-License-Identifier: Apache-2.0
import { describe, expect, jest, test } from '@jest/globals';
import fc from 'fast-check';
import { readdirSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Pipe, closeFd, makePipe, setNonblocking, tryRead, tryWrite } from '../../../src/linux/fds.js';
import { POLLET, POLLHUP, POLLIN, POLLOUT, createPoller } from '../../../src/linux/poller.js';
import { until } from '../../support/until.js';
import { makePoller, within } from './support.js';

jest.setTimeout(30_000);

const one = Buffer.from('x');
const scratch = Buffer.alloc(65536);

function pipes(count: number): Pipe[] {
  return Array.from({ length: count }, () => {
    const pipe = makePipe();
    setNonblocking(pipe.readFd);
    setNonblocking(pipe.writeFd);
    return pipe;
  });
}

function closePipes(all: readonly Pipe[]): void {
  for (const { readFd, writeFd } of all) {
    closeFd(readFd);
    closeFd(writeFd);
  }
}

describe('the poller', () => {
  test('tells of each of 600 descriptors, in any order of events', async () => {
    const poller = makePoller();
    const all = pipes(600);
    const seen = new Set<number>();
    const watches = all.map(({ readFd }, i) =>
      poller.watch(readFd, POLLIN, () => {
        if (tryRead(readFd, scratch, scratch.length) !== 'again') seen.add(i);
      }),
    );
    for (let i = 0; i < all.length; i++) tryWrite(all[(i * 391) % all.length]?.writeFd ?? -1, one, 1);
    await until('all events', () => seen.size === all.length, 10_000);
    watches.forEach((watch) => watch.close());
    closePipes(all);
  });

  test('tells by edges of a pipe that was full: once when it was read, and never while it merely has room', async () => {
    const poller = makePoller();
    const [pipe] = pipes(1) as [Pipe];
    let events = 0;
    const fill = (): void => {
      while (tryWrite(pipe.writeFd, scratch, scratch.length) !== 'again') continue;
    };
    fill();
    const watch = poller.watch(pipe.writeFd, POLLOUT | POLLET, () => events++);
    for (const round of [1, 2]) {
      await sleep(50);
      expect(events).toBe(round - 1);
      tryRead(pipe.readFd, scratch, scratch.length);
      await until('the event', () => events === round, 5_000);
      // Half of it has room now: whoever asked again would be told so at once.
      await sleep(50);
      expect(events).toBe(round);
      fill();
    }
    watch.close();
    closePipes([pipe]);
  });

  test('wakes up at once for a descriptor that is added, or wanted again, while it sleeps', async () => {
    const poller = makePoller();
    const [silent, later] = pipes(2) as [Pipe, Pipe];
    poller.watch(silent.readFd, POLLIN, () => undefined);
    await sleep(50); // Now it sleeps in poll.
    tryWrite(later.writeFd, one, 1);
    let startedMs = performance.now();
    let events = 0;
    const watch = poller.watch(later.readFd, POLLIN, () => {
      events++;
      watch.setEvents(0);
    });
    await until('the event', () => events === 1, 5_000);
    expect(performance.now() - startedMs).toBeLessThan(1_000);

    // Not wanted: the byte that still lies there is not told of.
    await sleep(50);
    expect(events).toBe(1);
    startedMs = performance.now();
    watch.setEvents(POLLIN);
    await until('the next event', () => events === 2, 5_000);
    expect(performance.now() - startedMs).toBeLessThan(1_000);
    closePipes([silent, later]);
  });

  test('never calls back a watch that was closed: neither while it sleeps, nor by another callback', async () => {
    const poller = makePoller();
    const all = pipes(20);
    let calls = 0;
    // The first event closes all the others, whose events are known by then.
    const watches = all.map(({ readFd }) =>
      poller.watch(readFd, POLLIN, () => {
        calls++;
        watches.forEach((watch) => watch.close());
      }),
    );
    for (const { writeFd } of all) tryWrite(writeFd, one, 1);
    await until('the first event', () => calls > 0, 5_000);
    await sleep(30);
    expect(calls).toBe(1);

    const [sleeping, other] = pipes(2) as [Pipe, Pipe];
    const watch = poller.watch(sleeping.readFd, POLLIN, () => calls++);
    poller.watch(other.readFd, POLLIN, () => undefined);
    await sleep(30);
    watch.close();
    closePipes([sleeping]);
    // The numbers are taken again by descriptors that are ready at once.
    const [again] = pipes(1) as [Pipe];
    tryWrite(again.writeFd, one, 1);
    await sleep(30);
    expect(calls).toBe(1);
    closePipes([...all, other, again]);
  });

  test('tells of the end of a pipe and of room in it', async () => {
    const poller = makePoller();
    const [ending, full] = pipes(2) as [Pipe, Pipe];
    let seen = 0;
    const end = poller.watch(ending.readFd, POLLIN, (revents) => {
      seen |= revents;
      end.close();
    });
    closeFd(ending.writeFd);
    await until('the end', () => (seen & POLLHUP) !== 0, 5_000);

    while (tryWrite(full.writeFd, scratch, scratch.length) !== 'again');
    let room = false;
    const watch = poller.watch(full.writeFd, POLLOUT, () => {
      room = true;
      watch.close();
    });
    await sleep(30);
    expect(room).toBe(false);
    tryRead(full.readFd, scratch, scratch.length);
    await until('room', () => room, 5_000);
    closeFd(ending.readFd);
    closePipes([full]);
  });

  test('loses no event while watches are switched off and on and signals interrupt it', async () => {
    const onSignal = (): void => undefined;
    process.on('SIGWINCH', onSignal);
    try {
      await fc.assert(
        fc.asyncProperty(
          fc.array(
            fc.record({
              pipe: fc.nat({ max: 5 }),
              bytes: fc.integer({ min: 1, max: 3000 }),
              off: fc.boolean(),
              pause: fc.boolean(),
            }),
            { minLength: 1, maxLength: 60 },
          ),
          async (steps) => {
            const poller = createPoller();
            const all = pipes(6);
            let got = 0;
            const watches = all.map(({ readFd }, i) =>
              poller.watch(readFd, POLLIN, () => {
                const length = tryRead(readFd, scratch, 700);
                if (typeof length === 'number') got += length;
                // A consumer without room for now.
                watches[i]?.setEvents(0);
                setImmediate(() => watches[i]?.setEvents(POLLIN));
              }),
            );
            let put = 0;
            for (const step of steps) {
              const pipe = all[step.pipe];
              if (step.off) watches[step.pipe]?.setEvents(0);
              const taken = tryWrite(pipe?.writeFd ?? -1, scratch, step.bytes);
              if (typeof taken === 'number') put += taken;
              process.kill(process.pid, 'SIGWINCH');
              if (step.pause) await new Promise((resolve) => setImmediate(resolve));
              watches[step.pipe]?.setEvents(POLLIN);
            }
            // Shorter than the poller's own time-out, which would paper over a lost wake-up.
            await within(
              'every byte',
              untilEqual(() => got, put),
              1_500,
            );
            watches.forEach((watch) => watch.close());
            poller.close();
            closePipes(all);
          },
        ),
        { numRuns: 25 },
      );
    } finally {
      process.off('SIGWINCH', onSignal);
    }
  });

  test('leaves no descriptor behind, asleep or not', async () => {
    const eventfds = (): number => readdirSync('/proc/self/fd').length;
    const [pipe] = pipes(1) as [Pipe];
    await sleep(10);
    const before = eventfds();
    for (let i = 0; i < 20; i++) {
      const poller = createPoller();
      poller.watch(pipe.readFd, POLLIN, () => undefined);
      if (i % 2 === 0) await sleep(5);
      poller.close();
      poller.close();
    }
    await until('the last poll to end', () => eventfds() <= before, 5_000);
    closePipes([pipe]);
  });
});

async function untilEqual(value: () => number, wanted: number): Promise<void> {
  while (value() !== wanted) await sleep(2);
}
