// SPDX-License-Identifier: Apache-2.0
// Files of the application's own are not in the image. What has changed since the checkpoint is refused, not continued wrongly.
import { readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from '@jest/globals';
import { withBed, type Bed, type Identity } from '../support/bed.js';
import { checkLines } from '../support/lines.js';
import type { Job } from '../support/job.js';
import { signalPid } from '../support/processes.js';
import { until } from '../support/until.js';

/** Numbers lines into a file that the shell holds open, until the stop file is there. */
function writer(redirection: '>>' | '>'): readonly string[] {
  const script = `exec 3${redirection}"$2"; i=0
while [ ! -e "$1" ]; do echo "$i line" >&3; i=$((i + 1)); sleep 0.05; done
echo "$i done" >&3`;
  return ['/bin/sh', '-c', script, 'sh'];
}

interface Crashed {
  readonly options: readonly string[];
  readonly command: readonly string[];
  readonly log: string;
  readonly stopFile: string;
  /** Length of the file at the checkpoint, as the refusal names it. */
  readonly refused: Job;
}

/** A job that is checkpointed, goes on writing, and is lost; then the same command again, which has to refuse. */
async function crashed(bed: Bed, redirection: '>>' | '>'): Promise<Crashed> {
  const [stopFile, log] = [bed.path('stop'), bed.path('work', "app's log")];
  const options = ['--image-url', `file:${bed.path('image')}`];
  const command = [...writer(redirection), stopFile, log];
  const job = bed.run(await bed.place(), options, command);
  await job.ready('scratch');
  const more = async (): Promise<void> => {
    const from = statSync(log, { throwIfNoEntry: false })?.size ?? 0;
    await until('the file to grow', () => (statSync(log, { throwIfNoEntry: false })?.size ?? 0) > from + 20);
  };
  await more();
  await job.commits(['--leave-running']);
  await more();
  bed.leavesState = true;
  signalPid(job.pid, 'SIGKILL');
  await job.ends();
  await until('the whole job to be gone', () => bed.survivors().length === 0, 20_000);

  const refused = bed.run(await bed.place(), options, command);
  expect(await refused.ends()).toMatchObject({ code: 171 });
  expect(refused.stderr).toContain(log);
  expect(bed.survivors()).toEqual([]);
  return { options, command, log, stopFile, refused };
}

for (const identity of ['root', 'user'] as const satisfies readonly Identity[]) {
  describe(`as ${identity}: after a crash`, () => {
    test('a file open for appending that has grown stops the restore; cut back as the message says, all is exact', async () => {
      await withBed(identity, async (bed) => {
        const { options, command, log, stopFile, refused } = await crashed(bed, '>>');
        const hint = /Try: .*truncate -s (\d+) '(.*)'\n/.exec(refused.stderr);
        expect(hint?.[2]).toBe(log.replace("'", `'\\''`));
        truncateSync(log, Number(hint?.[1]));
        const again = bed.run(await bed.place({ clockOffsetS: 1000 }), options, command);
        await again.ready('restored');
        writeFileSync(stopFile, '');
        expect(await again.ends()).toMatchObject({ code: 0 });
        expect(checkLines(readFileSync(log, 'utf8'))).toBeGreaterThan(2);
      });
    }, 120_000);

    test('one that has been cut too far stops it too', async () => {
      await withBed(identity, async (bed) => {
        const { options, command, log } = await crashed(bed, '>>');
        truncateSync(log, 3);
        const again = bed.run(await bed.place(), options, command);
        expect(await again.ends()).toMatchObject({ code: 171 });
        expect(again.stderr).toMatch(/and has 3 now: a part of it is missing/);
        expect(again.stderr).not.toMatch(/truncate/);
      });
    }, 120_000);

    test('so does a file open for writing in any other way', async () => {
      await withBed(identity, async (bed) => {
        const { refused } = await crashed(bed, '>');
        expect(refused.stderr).toMatch(/has \d+ bytes now, and had \d+ at the checkpoint/);
      });
    }, 120_000);
  });
}
