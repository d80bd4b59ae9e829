// SPDX-License-Identifier: Apache-2.0
// The kill campaign: SIGKILL to any process of ours at random instants of a checkpoint or a restore. After each: no torn image is visible, the
// last committed image restores and the program continues exactly, and no process, mount or file is left.
import { readFileSync, writeFileSync } from 'node:fs';
import { afterAll, describe, expect, test } from '@jest/globals';
import { withBed, type Identity } from '../support/bed.js';
import { checkNames, generations } from '../support/image.js';
import { findVictim, PhaseWatch, PHASES, VICTIMS, type Phase, type Victim } from '../support/kills.js';
import { checkLines } from '../support/lines.js';
import { ended } from '../support/place.js';
import { signalPid } from '../support/processes.js';
import { Choices, FULL, SEED } from '../support/random.js';
import { fastfreeze, fixture, PYTHON } from '../support/stage.js';
import { messageOf, sleep, until } from '../support/until.js';

const KILLS = FULL ? 260 : 16;
const GROUPS = 4;

interface Kill {
  readonly victim: Victim;
  readonly phase: Phase;
}
const kills: Kill[] = [];

/** One kill during a checkpoint of a running job, then the proof that nothing was lost but the work since the last commit. */
async function killDuringCheckpoint(identity: Identity, victim: Victim, choices: Choices): Promise<void> {
  await withBed(identity, async (bed) => {
    const image = bed.path('image');
    const output = bed.path('work', 'log');
    const stopFile = bed.path('stop');
    const options = ['--image-url', `file:${image}`, '--output', output];
    const command = [PYTHON, fixture('memory.py'), stopFile, '48'];
    const lines = (): number => readFileSync(output, 'utf8').split('\n').length;
    const more = async (count: number): Promise<void> => {
      const from = lines();
      await until(`${count} more lines`, () => lines() > from + count);
    };
    const place = await bed.place();
    const job = bed.run(place, options, command);
    await job.ready();
    await more(2);
    const since = Date.now();
    await job.commits(['--leave-running']);
    const usualMs = Date.now() - since;
    await more(1);

    const client = place.start([...fastfreeze(), 'checkpoint', ...(choices.next() < 0.5 ? ['--leave-running'] : [])]);
    let killed: Victim | undefined;
    const clientEnd = ended(client, 'the client', () => '');
    const watch = new PhaseWatch(job, image);
    // At the beginning of a phase or anywhere in it; a phase that has gone by already will do as well.
    const wanted = choices.pick(PHASES.filter((one) => one !== 'restoring'));
    const due = PHASES.indexOf(wanted);
    const patience = Date.now() + 20 * usualMs;
    while (PHASES.indexOf(watch.look()) < due && client.exitCode === null && Date.now() < patience) await sleep(1);
    await sleep(choices.between(0, Math.max(10, Math.floor(usualMs / 4))));
    // Whoever has done its part already cannot be killed any more: then somebody else.
    for (const part of [victim, ...choices.shuffled(VICTIMS)]) {
      const target = findVictim(part, job, client.pid);
      if (target === undefined) continue;
      const phase = watch.look();
      signalPid(target.pid, 'SIGKILL');
      kills.push({ victim: part, phase });
      killed = part;
      break;
    }
    await clientEnd;
    checkNames(image, { writing: true });

    // Either it goes on, or it has ended; what it never is: stopped, or half gone.
    await sleep(300);
    const goesOn = await until('the job to go on or end', () =>
      !job.running ? 'ended' : bed.survivors().length > 1 ? 'goes on' : undefined,
    );
    if (goesOn === 'goes on' && killed !== 'launcher') {
      await Promise.race([more(3), job.ends()]);
    }
    if (job.running) {
      // The end of the machine: all at once, as far as we can.
      signalPid(job.pid, 'SIGKILL');
      await job.ends();
    }
    // Nobody helps now: what belongs to the job has to go by itself.
    await until(
      'the whole job to be gone',
      () => bed.survivors().length === 0,
      20_000,
      () => JSON.stringify(bed.survivors(), null, 1),
    );
    checkNames(image, { writing: true });
    expect(generations(image).length).toBeGreaterThanOrEqual(1);

    const again = bed.run(await bed.place({ clockOffsetS: 1000 }), options, command);
    await again.ready('restored');
    await more(3);
    // What the killed one had begun to write may lie there until the job's next checkpoint, and no longer.
    await again.commits(['--leave-running']);
    checkNames(image);
    writeFileSync(stopFile, '');
    expect(await again.ends()).toMatchObject({ code: 0 });
    checkLines(readFileSync(output, 'utf8'));
    expect(job.stderr + again.stderr).not.toMatch(/VIOLATION/);
    // A launcher that was killed cannot tidy up its state directory; the next job of that name does.
    bed.leavesState = true;
  });
}

/** One kill during a restore, then a restore that works. */
async function killDuringRestore(identity: Identity, victim: Victim, choices: Choices): Promise<void> {
  await withBed(identity, async (bed) => {
    const image = bed.path('image');
    const stopFile = bed.path('stop');
    const options = ['--image-url', `file:${image}`];
    const command = [PYTHON, fixture('memory.py'), stopFile, '48'];
    const first = bed.run(await bed.place(), options, command);
    await first.ready();
    await first.progresses(2);
    await first.freeze();

    const place = await bed.place();
    const second = bed.run(place, options, command);
    const killAt = Date.now() + choices.between(0, 700);
    const isReady = (): boolean => /is ready/.test(second.stderr);
    while (
      Date.now() < killAt ||
      (victim === 'criu' && second.running && !isReady() && findVictim('criu', second, undefined) === undefined)
    ) {
      await sleep(2);
    }
    const survived = isReady();
    for (const part of [victim, ...choices.shuffled(VICTIMS)]) {
      const target = findVictim(part, second, undefined);
      if (target === undefined) continue;
      signalPid(target.pid, 'SIGKILL');
      kills.push({ victim: part, phase: survived ? 'committed' : 'restoring' });
      break;
    }
    await sleep(300);
    if (second.running) {
      // Killed before it was ready, it ends with an error by itself, or does without the one that was killed.
      await until('the job to be ready or to end', () => isReady() || !second.running);
      signalPid(second.pid, 'SIGKILL');
      const { code } = await second.ends();
      if (!isReady()) expect(code).not.toBe(0);
    }
    await until(
      'the whole job to be gone',
      () => bed.survivors().length === 0,
      20_000,
      () => JSON.stringify(bed.survivors(), null, 1),
    );
    // A launcher that was killed as it took the lease leaves a temporary file; the next one removes it.
    checkNames(image, { writing: true });

    const third = bed.run(await bed.place(), options, command);
    await third.ready('restored');
    await third.progresses(3);
    writeFileSync(stopFile, '');
    expect(await third.ends()).toMatchObject({ code: 0 });
    checkLines(first.stdout + third.stdout);
    expect(third.stderr).not.toMatch(/VIOLATION/);
    bed.leavesState = true;
  });
}

describe(`kills, seed ${SEED}`, () => {
  for (let group = 0; group < GROUPS; group += 1) {
    const count = Math.ceil(KILLS / GROUPS);
    test(
      `${count} kills, group ${group + 1}: nothing torn, nothing left, everything restores`,
      async () => {
        const failures: string[] = [];
        for (let i = 0; i < count && failures.length < 5; i += 1) {
          const number = group * count + i;
          const choices = new Choices(`kill/${number}`);
          const identity: Identity = number % 2 === 0 ? 'root' : 'user';
          const restoring = number % 4 === 3;
          // Every victim has its turn, whatever the dice say.
          const victim = VICTIMS[Math.floor(number / 2) % VICTIMS.length] ?? 'launcher';
          try {
            if (restoring) await killDuringRestore(identity, victim === 'client' ? 'supervisor' : victim, choices);
            else await killDuringCheckpoint(identity, victim, choices);
          } catch (error) {
            failures.push(
              `kill ${number} (${restoring ? 'restore' : 'checkpoint'}, ${identity}, ${victim}; FF_TEST_SEED=${SEED}): ${messageOf(error)}`,
            );
          }
        }
        if (failures.length > 0) throw new Error(failures.join('\n\n'));
      },
      FULL ? 3_600_000 : 300_000,
    );
  }

  afterAll(() => {
    const rows = VICTIMS.map((victim) => [
      victim,
      ...PHASES.map((phase) => kills.filter((k) => k.victim === victim && k.phase === phase).length),
    ]);
    const table = [['victim', ...PHASES], ...rows]
      .map((row) => row.map((cell) => String(cell).padStart(11)).join(''))
      .join('\n');
    process.stdout.write(`kill campaign, FF_TEST_SEED=${SEED}: ${kills.length} kills\n${table}\n`);
  });
});
