// SPDX-License-Identifier: Apache-2.0
// What of the caller's environment an application gets, from scratch and restored.
import { describe, expect, test } from '@jest/globals';
import { withBed, type Bed } from '../support/bed.js';

const url = (bed: Bed): string[] => ['--image-url', `file:${bed.path('image')}`];
/** Prints its environment as it is now, and again once it has been told to. */
const TWICE =
  'env | sort; echo ---; until [ -e "$0" ]; do sleep 0.05; done; env | sort; tr "\\0" "\\n" </proc/self/environ | sort';

for (const identity of ['root', 'user'] as const) {
  describe(`as ${identity}`, () => {
    test('FF_APP_* come under their own names, tokens and what is scrubbed do not come, and none of it changes at a restore', async () => {
      await withBed(identity, async (bed) => {
        const env = {
          FF_APP_PATH: '/app/bin:/usr/bin:/bin',
          FF_APP_LD_LIBRARY_PATH: '/app/lib',
          FF_APP_INJECT_GREETING: 'two words',
          FF_APP_INJECT_UV_THREADPOOL_SIZE: '3',
          ACTIONS_RUNTIME_TOKEN: 'secret-a',
          AWS_SECRET_ACCESS_KEY: 'secret-b',
          AWS_REGION: 'here',
        };
        const command = ['/bin/sh', '-c', TWICE, bed.path('stop')];
        const options = [...url(bed), '--scrub-env', 'AWS_*', '--scrub-env', '!AWS_REGION'];
        const first = bed.run(await bed.place(), options, command, { env });
        await first.prints(/---/);
        await first.freeze();
        const second = bed.run(await bed.place(), url(bed), command, { env: { FF_APP_INJECT_GREETING: 'too late' } });
        await second.ready('restored');
        bed.write('stop', '');
        expect(await second.ends()).toMatchObject({ code: 0 });
        for (const seen of [first.stdout, second.stdout]) {
          const lines = seen.split('\n');
          expect(lines).toEqual(
            expect.arrayContaining([
              'PATH=/app/bin:/usr/bin:/bin',
              'LD_LIBRARY_PATH=/app/lib',
              'GREETING=two words',
              'UV_THREADPOOL_SIZE=3',
              'AWS_REGION=here',
              'FASTFREEZE=1',
              'TMPDIR=/var/tmp/fastfreeze/tmp',
            ]),
          );
          expect(seen).not.toMatch(/secret|FF_APP|too late/);
        }
      });
    }, 60_000);
  });
}

test('a variable that nobody knows, or a pattern that fits none, is refused before anything starts', async () => {
  await withBed('root', async (bed) => {
    const place = await bed.place();
    const unknown = bed.run(place, url(bed), ['touch', bed.path('ran')], { env: { FF_APP_INJEKT_X: '1' } });
    expect(await unknown.ends()).toMatchObject({ code: 2 });
    expect(unknown.stderr).toMatch(/FF_APP_INJEKT_X.*none of this name\nTry: .*FF_APP_INJECT_NAME/);
    const wrong = bed.run(place, [...url(bed), '--scrub-env', 'A=b'], ['touch', bed.path('ran')]);
    expect(await wrong.ends()).toMatchObject({ code: 2 });
    expect(wrong.stderr).toMatch(/--scrub-env "A=b".*name of a variable/);
    expect(bed.list()).not.toContain('ran');
  });
}, 30_000);

test('TMPDIR is a place of the job’s own that travels, unless another is injected', async () => {
  await withBed('root', async (bed) => {
    const place = await bed.place();
    const seen = async (env: Record<string, string>): Promise<string> => {
      // A place that is not there is no reason not to run.
      const more = { env: { TMPDIR: '/nowhere/at/all', ...env } };
      const job = bed.run(place, [...url(bed), '--no-restore'], ['sh', '-c', 'echo "$TMPDIR"; : >"$TMPDIR/x"'], more);
      expect(await job.ends()).toMatchObject({ code: 0 });
      return job.stdout.trim();
    };
    expect(await seen({})).toBe('/var/tmp/fastfreeze/tmp');
    expect(await seen({ FF_APP_INJECT_TMPDIR: bed.path('work') })).toBe(bed.path('work'));
    expect(bed.list('work')).toEqual(['x']);
  });
}, 60_000);

test('what a normal user’s job leaves in TMPDIR does not change how it ends, and does not stay', async () => {
  await withBed('user', async (bed) => {
    const script = 'mkdir "$TMPDIR/closed"; : >"$TMPDIR/closed/x"; chmod 555 "$TMPDIR/closed"; exit 7';
    const job = bed.run(await bed.place(), url(bed), ['sh', '-c', script]);
    expect(await job.ends()).toMatchObject({ code: 7 });
    expect(bed.list('tmp')).toEqual([]);
  });
}, 30_000);

test('UV_THREADPOOL_SIZE is the caller’s, or none; ours is never seen', async () => {
  await withBed('root', async (bed) => {
    const place = await bed.place();
    const seen = async (env: Record<string, string>, more: readonly string[] = []): Promise<string> => {
      const job = bed.run(
        place,
        [...url(bed), '--no-restore', ...more],
        ['sh', '-c', 'echo "${UV_THREADPOOL_SIZE-none}"'],
        {
          env,
        },
      );
      expect(await job.ends()).toMatchObject({ code: 0 });
      return job.stdout.trim();
    };
    expect(await seen({})).toBe('none');
    expect(await seen({ UV_THREADPOOL_SIZE: '7' })).toBe('7');
    expect(await seen({ UV_THREADPOOL_SIZE: '7' }, ['--scrub-env', 'UV_*'])).toBe('none');
    expect(await seen({ UV_THREADPOOL_SIZE: '7', FF_APP_INJECT_UV_THREADPOOL_SIZE: '9' })).toBe('9');
  });
}, 30_000);
