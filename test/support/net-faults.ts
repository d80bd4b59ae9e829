// SPDX-License-Identifier: Apache-2.0
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { withBed, type Identity } from './bed.js';
import { startCloud, type Cloud } from './clouds.js';
import type { Breakage, Dialect, Refusal } from './http-front.js';
import { NetChain, type Outcome } from './net-chain.js';
import { Choices, FULL, SEED } from './random.js';
import type { Direction } from './tcp-proxy.js';
import { sleep, until } from './until.js';

const KB = 1 << 10;
const MB = 1 << 20;

/** Something that goes wrong while an image is fetched (down) or sent (up). */
interface NetFault {
  readonly name: string;
  /** In seconds; 60 where it is left out. */
  readonly retryS?: number;
  /** 'well': it costs time and nothing else. 'badly': it lasts longer than requests are tried again. */
  readonly ends: Outcome;
  begin(cloud: Cloud, direction: Direction): Running;
}

interface Running {
  /** Proves that something has happened. */
  struck(): boolean;
  /** What is done meanwhile. */
  readonly meanwhile?: () => Promise<void>;
}

/** Real jobs with their images in one kind of cloud, frozen and continued under faults of the network and of the service. */
export function testNetFaults(scheme: Dialect, identity: Identity): void {
  let cloud: Cloud;
  const saved = { ...process.env };
  let jobs = 0;

  beforeAll(async () => {
    cloud = await startCloud(scheme);
    Object.assign(process.env, cloud.directEnv);
  }, 60_000);
  afterEach(() => cloud.heal());
  afterAll(async () => {
    process.env = saved;
    await cloud.stop();
  });

  const withChain = (body: (chain: NetChain) => Promise<void>): Promise<void> =>
    withBed(identity, async (bed) => {
      const chain = new NetChain(bed, cloud, `${scheme}://jobs/net ä-${++jobs}`);
      await chain.begin();
      await body(chain);
      await chain.finish();
    });

  describe(`${scheme}:, as ${identity}`, () => {
    for (const faults of inGroups(FAULTS[scheme], FULL ? 3 : 6)) {
      const names = faults.map(({ name }) => name).join('; ');
      test(
        names,
        () =>
          withChain(async (chain) => {
            for (const fault of faults) await passThrough(chain, cloud, fault);
          }),
        600_000,
      );
    }

    for (const requests of inGroups(REQUESTS, 12)) {
      const those = FULL ? `N from ${requests[0]} to ${requests.at(-1)}` : 'a few N';
      test(
        `the Nth request fails (${those}): the job continues, or it is told why not`,
        () =>
          withChain(async (chain) => {
            for (const nth of requests) {
              if (!(await failsAt(chain, cloud, nth))) break;
            }
          }),
        600_000,
      );
    }
  });
}

/** A restore under the fault, and a checkpoint of what has been restored. */
async function passThrough(chain: NetChain, cloud: Cloud, fault: NetFault): Promise<void> {
  const { retryS = 60, ends } = fault;
  const restoring = fault.begin(cloud, 'down');
  let [job] = await Promise.all([chain.continues({ retryS }), restoring.meanwhile?.()]);
  expectStruck(fault, restoring, 'restore');
  expect({ [fault.name]: job === undefined ? 'badly' : 'well' }).toEqual({ [fault.name]: ends });
  await cloud.heal();
  job ??= await chain.continues({ retryS });
  if (job === undefined) throw new Error(`${fault.name}: over, and the job does not continue`);

  const checkpointing = fault.begin(cloud, 'up');
  const [outcome] = await Promise.all([chain.checkpoints(job, { restoresOld: true }), checkpointing.meanwhile?.()]);
  expectStruck(fault, checkpointing, 'checkpoint');
  expect({ [fault.name]: outcome }).toEqual({ [fault.name]: ends });
  await cloud.heal();
  if (outcome === 'badly') await chain.freeze(job);
}

function expectStruck(fault: NetFault, running: Running, what: string): void {
  if (!running.struck()) throw new Error(`${fault.name}: the ${what} was over before it`);
}

/** Resolves to whether there were so many requests, of a restore or of a checkpoint. */
async function failsAt(chain: NetChain, cloud: Cloud, nth: number): Promise<boolean> {
  // Either the request is tried again, which must always help, or its failure is the operation's.
  const retryS = nth % 3 === 0 ? 60 : 0;
  const restoring = failNth(cloud, nth);
  let job = await chain.continues({ retryS });
  if (retryS > 0) expect(job).toBeDefined();
  await cloud.heal();
  job ??= await chain.continues({ retryS });
  if (job === undefined) throw new Error(`request ${nth}: the job does not continue`);
  const checkpointing = failNth(cloud, nth);
  const outcome = await chain.checkpoints(job, { restoresOld: nth % 5 === 0 });
  if (retryS > 0) expect(outcome).toBe('well');
  await cloud.heal();
  if (outcome === 'badly') await chain.freeze(job);
  return restoring.struck() || checkpointing.struck();
}

/** In full all that there are, of which a restore and a checkpoint have fewer. */
const ALL_REQUESTS = Array.from({ length: 60 }, (_, i) => i + 1);
/** Of these a small image's checkpoint has about twenty. */
const REQUESTS = FULL ? ALL_REQUESTS : new Choices('net-faults').shuffled(ALL_REQUESTS.slice(0, 20)).slice(0, 3);

const WAYS: readonly (Breakage | Refusal)[] = [
  'unasked',
  { status: 500, code: 'InternalError' },
  'unanswered',
  'half-answered',
];

function failNth(cloud: Cloud, nth: number): Running {
  let requests = 0;
  cloud.front.refuse = () => (++requests === nth ? WAYS[(nth + SEED) % WAYS.length] : undefined);
  return { struck: () => requests >= nth };
}

const afterBytes = (bytes: number, then: 'reset' | 'end' | 'stall') => (cloud: Cloud, direction: Direction) => {
  cloud.proxy.trap(direction, bytes, then);
  return { struck: () => !cloud.proxy.armed };
};

const resets = [1, 2_000, 300 * KB, 5 * MB, 9 * MB, 20 * MB].map((bytes): NetFault => ({
  name: `reset after ${bytes} bytes`,
  ends: 'well',
  begin: afterBytes(bytes, 'reset'),
}));

const ends = [500, 200 * KB, 6 * MB, 15 * MB].map((bytes): NetFault => ({
  name: `closed early after ${bytes} bytes`,
  ends: 'well',
  begin: afterBytes(bytes, 'end'),
}));

/** By time, not by count: one request alone would take a minute to be refused twenty times. */
const STORM_MS = 2_000;

const storm: NetFault = {
  name: 'a storm of 503',
  ends: 'well',
  begin(cloud) {
    let requests = 0;
    let endMs = Infinity;
    let refused = 0;
    cloud.front.refuse = () => {
      // Some come through first, so that it falls into the middle.
      if (++requests <= 4) return undefined;
      if (endMs === Infinity) endMs = Date.now() + STORM_MS;
      if (Date.now() > endMs) return undefined;
      refused++;
      return { status: 503, code: 'SlowDown' };
    };
    return { struck: () => refused > 0 };
  },
};

const stormForGood: NetFault = {
  name: 'a storm of 503 without end',
  retryS: 1,
  ends: 'badly',
  begin(cloud) {
    let requests = 0;
    cloud.front.refuse = () => (++requests > 6 ? { status: 503, code: 'SlowDown' } : undefined);
    return { struck: () => requests > 6 };
  },
};

const farAway: NetFault = {
  name: 'a long way',
  ends: 'well',
  begin(cloud) {
    const passed = cloud.proxy.passed.up;
    cloud.proxy.delayMs = 5;
    return { struck: () => cloud.proxy.passed.up > passed };
  },
};

const trickle: NetFault = {
  name: 'a trickle that becomes a stream again',
  ends: 'well',
  begin({ proxy }, direction) {
    const start = proxy.passed[direction];
    // What comes before the image is small.
    const isUnderWay = (): boolean => proxy.passed[direction] - start > 300 * KB;
    let trickled = false;
    return {
      struck: () => trickled,
      async meanwhile() {
        await until('bytes of the image', isUnderWay);
        proxy.bytesPerSecond = 4 * KB;
        await sleep(FULL ? 10_000 : 1_500);
        trickled = true;
        proxy.bytesPerSecond = undefined;
      },
    };
  },
};

const restart = (bytes: number): NetFault => ({
  name: `the service is killed after ${bytes} bytes and started again`,
  ends: 'well',
  begin(cloud, direction) {
    cloud.proxy.trap(direction, bytes, 'refuse');
    let isBack = false;
    return {
      struck: () => isBack,
      async meanwhile() {
        await until('the service to die', () => !cloud.proxy.armed);
        await cloud.die();
        await sleep(1_500);
        await cloud.back();
        isBack = true;
      },
    };
  },
});

const goneForGood: NetFault = {
  name: 'the service dies for good',
  retryS: 1,
  ends: 'badly',
  begin(cloud, direction) {
    cloud.proxy.trap(direction, 10 * MB, 'refuse');
    return { struck: () => !cloud.proxy.armed };
  },
};

/** Half a minute or more until anybody notices: only in full. */
const stalls = [2_000, 9 * MB].map((bytes): NetFault => ({
  name: `stands still after ${bytes} bytes`,
  retryS: 120,
  ends: 'well',
  begin: afterBytes(bytes, 'stall'),
}));

const ALL_FAULTS: readonly NetFault[] = [
  ...[...stalls, ...resets, ...ends, storm, stormForGood, farAway, trickle],
  ...[restart(2_000), restart(9 * MB), goneForGood],
];

/** In full all for either service; else each kind for one of them. */
const FAULTS: Readonly<Record<Dialect, readonly NetFault[]>> = {
  s3: FULL ? ALL_FAULTS : [...resets.slice(2, 3), storm, restart(9 * MB)],
  gs: FULL ? ALL_FAULTS : [...ends.slice(2, 3), trickle, goneForGood],
};

/** A few of them per job: each costs a restore and a checkpoint, and a job's beginning and end as much. */
function inGroups<T>(all: readonly T[], size: number): T[][] {
  return Array.from({ length: Math.ceil(all.length / size) }, (_, i) => all.slice(i * size, (i + 1) * size));
}
