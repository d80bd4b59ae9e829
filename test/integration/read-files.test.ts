// SPDX-License-Identifier: Apache-2.0
// The promise, and the way around it: files that the application reads must be what they were, state that CRIU changes is refused.
import { openSync, closeSync, writeFileSync, writeSync } from 'node:fs';
import { describe, expect, test } from '@jest/globals';
import { withBed, type Identity } from '../support/bed.js';
import { PYTHON } from '../support/stage.js';

/** Has one file mapped and one open, both for reading, and an eventfd that CRIU brings back as a plain one. */
const READER = `
import mmap, os, sys, time
data, table, stop = sys.argv[1:4]
stream = open(data)
with open(table, "rb") as f: mapped = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)
fd = os.eventfd(1, os.EFD_SEMAPHORE)
n = 0
while not os.path.exists(stop):
    print(n, mapped[0], flush=True)
    n += 1
    time.sleep(0.05)
print("done", flush=True)
`;

function patch(path: string, text: string): void {
  const fd = openSync(path, 'r+');
  writeSync(fd, text, 0);
  closeSync(fd);
}

for (const identity of ['root', 'user'] as const satisfies readonly Identity[]) {
  describe(`as ${identity}: what would not continue exactly`, () => {
    test('does not, unless --allow-inexact says so, and then with a word', async () => {
      await withBed(identity, async (bed) => {
        const [data, table] = [bed.write('work/data', 'text'), bed.write('work/table', 'A'.repeat(9000))];
        const [image, stop] = [`file:${bed.path('image')}`, bed.path('stop')];
        const command = [PYTHON, bed.write('reader.py', READER), data, table, stop];
        const job = bed.run(await bed.place(), ['--image-url', image], command);
        await job.ready('scratch');
        await job.progresses(2);
        const refused = await job.checkpoint();
        expect(refused).toMatchObject({ code: 170 });
        expect(refused.stderr).toMatch(/an eventfd in semaphore mode would lose that mode/);
        await job.freeze(['--allow-inexact']);
        expect(job.stderr).toMatch(/Warning: the image is not exact: .*eventfd in semaphore mode/);

        for (const path of [data, table]) {
          patch(path, 'B');
          const changed = bed.run(await bed.place(), ['--image-url', image], command);
          expect(await changed.ends()).toMatchObject({ code: 171 });
          expect(changed.stderr).toContain(
            `cannot continue the application, which reads ${path}: its content is another one`,
          );
          expect(changed.stderr).toMatch(/^Try: .*--allow-inexact/m);
          expect(changed.stdout).toBe('');
          if (path === data) patch(path, 't');
        }

        const again = bed.run(await bed.place(), ['--image-url', image, '--allow-inexact'], command);
        await again.ready('restored');
        expect(again.stderr).toContain(`the application does not continue exactly: ${table}: its content`);
        expect(again.stderr).toMatch(/the image is not exact: .*eventfd/);
        // It reads what is there now.
        await again.prints(/^\d+ 66$/m);
        writeFileSync(stop, '');
        expect(await again.ends()).toMatchObject({ code: 0 });
      });
    }, 120_000);
  });
}
