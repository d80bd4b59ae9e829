// SPDX-License-Identifier: Apache-2.0
import { chmodSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, jest, test } from '@jest/globals';
import { createRecorder } from '../../../../src/engine/metrics/recorder.js';
import { inspect } from '../../../support/processes.js';
import { until } from '../../../support/until.js';
import { makeDirectory, within } from '../../linux/support.js';

/** A program that appends what it is given to `said`, and does `more`. */
function script(more = ''): { program: string; said: () => string[]; directory: string } {
  const directory = makeDirectory();
  const program = join(directory, 'record me.sh');
  writeFileSync(program, `#!/bin/sh\nprintf '%s\\n' "$#:$1" >>'${directory}/said'\n${more}\n`);
  chmodSync(program, 0o755);
  const said = (): string[] =>
    existsSync(join(directory, 'said')) ? readFileSync(join(directory, 'said'), 'utf8').trim().split('\n') : [];
  return { program, said, directory };
}

jest.setTimeout(20_000);

describe('the metrics recorder', () => {
  test('is given each event as its one argument, in order, one process at a time', async () => {
    const { program, said } = script('sleep 0.02');
    const warnings: string[] = [];
    const recorder = createRecorder({ program, warn: (text) => warnings.push(text) });
    const events = Array.from({ length: 8 }, (_, i) => `{"n":${i},"text":"a 'b' $(c)"}`);
    for (const event of events) recorder.record(event);
    await within('the recorder', recorder.finish(10_000));
    expect(said()).toEqual(events.map((event) => `1:${event}`));
    expect(warnings).toEqual([]);
  });

  test('that fails is told of, with what it said, and gets the next event all the same', async () => {
    const { program, said } = script('echo "no route to host" >&2; exit 3');
    const warnings: string[] = [];
    const recorder = createRecorder({ program, warn: (text) => warnings.push(text) });
    recorder.record('1');
    recorder.record('2');
    await within('the recorder', recorder.finish(10_000));
    expect(said()).toEqual(['1:1', '1:2']);
    const warning = `the metrics recorder ${program} ended with exit code 3: no route to host`;
    expect(warnings).toEqual([warning, warning]);
  });

  test('that is none is told of, a shell command as what it is', async () => {
    const warnings: string[] = [];
    const recorder = createRecorder({ program: 'curl -d "$1" host', warn: (text) => warnings.push(text) });
    recorder.record('1');
    await within('the recorder', recorder.finish(10_000));
    expect(warnings).toHaveLength(1);
    expect(warnings[0]).toMatch(/could not be started: .*ENOENT; FF_METRICS_RECORDER is the path of one program/);
  });

  test.each(['ENOTDIR', 'EACCES', 'ENOENT'])(
    'that cannot be started (%s) is told of, whichever way Node tells it',
    async (code) => {
      const { program, directory } = script();
      const plain = join(directory, 'plain');
      writeFileSync(plain, '#!/bin/sh\n');
      const paths: Record<string, string> = { ENOTDIR: `${program}/`, EACCES: plain, ENOENT: join(directory, 'none') };
      const warnings: string[] = [];
      const recorder = createRecorder({ program: paths[code] ?? '', warn: (text) => warnings.push(text) });
      recorder.record('1');
      recorder.record('2');
      await until('both', () => warnings.length === 2, 5_000);
      for (const warning of warnings) expect(warning).toMatch(new RegExp(`could not be started: .*${code}`));
      await within('the recorder', recorder.finish(10_000));
    },
  );

  test('that is ended takes along what it has started', async () => {
    const { program, directory } = script(
      'sleep 60 & echo $! >"${0%/*}/pid.new"; mv "${0%/*}/pid.new" "${0%/*}/pid"; wait',
    );
    const recorder = createRecorder({ program, warn: () => undefined });
    recorder.record('1');
    await until('its child', () => existsSync(join(directory, 'pid')), 10_000);
    const pid = Number(readFileSync(join(directory, 'pid'), 'utf8'));
    // Between fork and exec it is still the script.
    await until('its program', () => inspect(pid)?.command.includes('sleep 60'), 10_000);
    await recorder.finish(0);
    await until('the end', () => !(inspect(pid)?.command ?? '').includes('sleep 60'), 10_000);
  });

  test('that hangs is ended, by its time or ours, and holds up nobody', async () => {
    const { program, said } = script('exec sleep 60');
    const warnings: string[] = [];
    const options = { program, warn: (text: string) => void warnings.push(text), processTimeoutMs: 2_000 };
    const recorder = createRecorder(options);
    recorder.record('1');
    recorder.record('2');
    await until('the second', () => said().length === 2, 10_000);
    await within('the recorder', recorder.finish(10_000));
    const slow = `the metrics recorder ${program} took over 2 s and was ended`;
    const ended = `the metrics recorder ${program} ended with SIGKILL: `;
    expect(warnings).toEqual([slow, ended, slow, ended]);

    const patient = createRecorder({ program, warn: (text) => void warnings.push(text) });
    patient.record('3');
    patient.record('4');
    await until('the third', () => said().length === 3, 5_000);
    await within('the end', patient.finish(100), 5_000);
    expect(warnings.at(-1)).toMatch(/has not recorded 2 events: it takes too long/);
    expect(said()).toHaveLength(3);
  });

  test('that is too slow for all events loses the oldest', async () => {
    const { program, said, directory } = script(
      'i=0; until [ -e "${0%/*}/go" ] || [ $i = 500 ]; do i=$((i + 1)); sleep 0.02; done',
    );
    const warnings: string[] = [];
    const recorder = createRecorder({ program, warn: (text) => warnings.push(text) });
    for (let i = 0; i < 1003; i++) recorder.record(String(i));
    await until('the first', () => said().length === 1, 5_000);
    expect(warnings).toEqual([`the metrics recorder ${program} is too slow: events are left out`]);
    writeFileSync(join(directory, 'go'), '');
    await until('some more', () => said().length >= 3, 5_000);
    expect(said().slice(0, 3)).toEqual(['1:0', '1:3', '1:4']);
    await recorder.finish(0);
  });
});
