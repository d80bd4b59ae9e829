// SPDX-License-Identifier: Apache-2.0
// Files that the application only reads and that another machine has otherwise, or not at all: with --carry-mapped it goes on with its own.
import { spawnSync } from 'node:child_process';
import {
  appendFileSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { describe, expect, test } from '@jest/globals';
import { withBed, type Bed, type Identity } from '../support/bed.js';
import type { Job, JobOptions } from '../support/job.js';
import { PYTHON } from '../support/stage.js';

/**
 * Shows again and again what a mapped library says and what a file holds, by its descriptor and by its name; last, what a
 * new process finds.
 */
const READER = `
import ctypes, os, subprocess, sys, time
library, data, stop = sys.argv[1:4]
ask = "import ctypes, sys; z = ctypes.CDLL(sys.argv[1]); z.zlibVersion.restype = ctypes.c_char_p; print(z.zlibVersion().decode())"
z = ctypes.CDLL(library)
z.zlibVersion.restype = ctypes.c_char_p
stream = open(data, "rb", buffering=0)
n = 0
while not os.path.exists(stop):
    with open(data) as again: named = again.read(3)
    stream.seek(0)
    print(n, z.zlibVersion().decode(), stream.read(3).decode(), named, flush=True)
    n += 1
    time.sleep(0.05)
child = subprocess.run([sys.executable, "-c", ask, library], capture_output=True, text=True)
here = os.path.dirname(library)
print("child", child.stdout.strip(), child.stderr, *sorted(os.listdir(here)), os.path.exists(here + "/link"), flush=True)
print("done", flush=True)
`;

/** The zlib of the system's Python, telling another version: of the same size. */
function zlibThatSays(letter: string): Buffer {
  const script = `import zlib; print(zlib.ZLIB_RUNTIME_VERSION)
print(next(line.split()[-1] for line in open("/proc/self/maps") if "/libz." in line))`;
  const [version = '', path = ''] = spawnSync(PYTHON, ['-c', script], { encoding: 'utf8' }).stdout.split('\n');
  const library = readFileSync(path);
  const at = library.indexOf(`\0${version}\0`);
  if (at < 0) throw new Error(`${path} does not hold ${version}`);
  return library.fill(letter, at + 1, at + 1 + version.length);
}

interface Machine {
  readonly stop: string;
  readonly lib: string;
  readonly library: string;
  readonly data: string;
  /** A program of its own, too. */
  readonly python: string;
  readonly command: readonly string[];
}

/** A directory of root's, like one of packages: what is in it is replaced between the runs. */
function machine(bed: Bed): Machine {
  const [stop, lib] = [bed.path('work', 'stop'), bed.path('lib')];
  const [library, data, python] = [`${lib}/libz.so`, `${lib}/data`, `${lib}/python3`];
  mkdirSync(`${lib}/sub`, { recursive: true });
  symlinkSync('sub', `${lib}/link`);
  writeFileSync(library, zlibThatSays('A'));
  writeFileSync(data, 'one');
  copyFileSync(PYTHON, python);
  return { stop, lib, library, data, python, command: [python, bed.write('reader.py', READER), library, data, stop] };
}

function noexec(bed: Bed): string {
  const path = bed.tmpfs('noexec', 1 << 20);
  expect(spawnSync('mount', ['-o', 'remount,noexec', path])).toMatchObject({ status: 0 });
  return path;
}

/** Every line is of the files that it started with. */
async function goesOn(job: Job): Promise<void> {
  await job.ready('restored');
  await job.progresses(3);
  expect(job.stdout).toMatch(/^(\d+ A+ one one\n)+/);
}

/** An image is whole with its carried files, elsewhere too, and plain files show them. Returns the copy's URL. */
async function throughCopy({ place }: Job, image: string, bed: Bed): Promise<string> {
  const [copy, plain] = [`file:${bed.path('copy')}`, bed.path('plain')];
  expect(await place.fastfreeze(['verify', '--all', image])).toMatchObject({ code: 0 });
  expect(await place.fastfreeze(['cp', '--all', image, copy])).toMatchObject({ code: 0 });
  expect(await place.fastfreeze(['extract', copy, '--output-dir', plain])).toMatchObject({ code: 0 });
  expect(readFileSync(`${plain}/fastfreeze-carried.list`, 'utf8')).toContain(`{"path":"${bed.path('lib')}/data"`);
  expect(readFileSync(`${plain}/fastfreeze-carried.data`).includes(zlibThatSays('A'))).toBe(true);
  return copy;
}

/** There is no place where only the application would see them. */
async function refusesWithoutContainer(bed: Bed, image: string, command: readonly string[]): Promise<void> {
  const within = ['unshare', '--pid', '--fork', '--mount', '--mount-proc', '--kill-child'];
  const job = bed.run(await bed.place(), ['--image-url', image, '--no-container'], command, { within });
  expect(await job.ends()).toMatchObject({ code: 171 });
  expect(job.stderr).toMatch(/its content is another one.*\nTry: leave out --no-container/);
}

/** Root's application would find out in the middle of its work that it can make nothing there. */
async function refusesReadOnly(job: Job, lib: string, library: string): Promise<void> {
  expect(await job.ends()).toMatchObject({ code: 171 });
  expect(job.stderr).toContain(`${library}: it is not there, and root may write to ${lib}`);
  expect(job.stderr).toMatch(/^Try: .*touch '.*libz\.so'; .*--allow-inexact/m);
}

for (const identity of ['root', 'user'] as const satisfies readonly Identity[]) {
  describe(`as ${identity}: --carry-mapped`, () => {
    test('lets a job go on with its own files where others have come in their place, or none are', async () => {
      await withBed(identity, async (bed) => {
        const { stop, lib, library, data, python, command } = machine(bed);
        let image = `file:${bed.path('image')}`;
        // What is unpacked there could not be executed.
        const env = { TMPDIR: noexec(bed) };
        const run = async (options: readonly string[] = [], more: JobOptions = {}): Promise<Job> =>
          bed.run(await bed.place(), ['--image-url', image, '--keep', '9', ...options], command, more);
        const knowing = identity === 'root' ? ['--allow-inexact'] : [];
        const job = await run();
        await job.ready('scratch');
        await job.progresses(2);
        await job.commits(['--leave-running']);
        const answer = JSON.parse((await job.freeze(['--carry-mapped', '--json'])).stdout) as {
          carried: { files: number; dataBytes: number };
        };
        expect(answer.carried.files).toBeGreaterThan(4);
        expect(answer.carried.dataBytes).toBeGreaterThan(readFileSync(library).length);
        expect(job.stderr).toMatch(/The image carries \d+ files that are only read/);

        if (identity === 'root') image = await throughCopy(job, image, bed);

        // The same size, other content.
        writeFileSync(data, 'two');
        const other = zlibThatSays('B');
        writeFileSync(library, other);
        appendFileSync(python, 'newer');
        const refused = await run(['--generation', '1']);
        expect(await refused.ends()).toMatchObject({ code: 171 });
        expect(refused.stderr).toContain(
          `cannot continue the application, which reads ${data}: its content is another`,
        );
        expect(refused.stderr).toMatch(/^Try: .*--carry-mapped/m);
        if (identity === 'root') await refusesWithoutContainer(bed, image, command);
        const second = await run();
        await goesOn(second);
        const status = await second.place.fastfreeze(['status', '--json']);
        expect(JSON.parse(status.stdout)).toMatchObject({ jobs: [{ replacedFiles: [data, library, python] }] });
        expect((await second.place.fastfreeze(['status'])).stdout).toContain(`    ${library}\n`);
        await second.freeze();
        // Nobody else has seen any of it.
        expect([readFileSync(data, 'utf8'), readFileSync(library)]).toEqual(['two', other]);
        const inspected = await second.place.fastfreeze(['inspect', image]);
        expect(inspected.stdout).toMatch(/^carried +\d+ files that it reads/m);

        // Another size, and none: a directory stands in for that of the machine, in which root could make nothing any more.
        writeFileSync(data, 'two and more');
        rmSync(library);
        if (identity === 'root') await refusesReadOnly(await run(), lib, library);
        const third = await run(knowing, { env });
        await goesOn(third);
        expect(third.stderr).toContain(`${lib} lacks what the application reads in it`);
        await third.freeze();
        expect(readdirSync(lib)).toEqual(['data', 'link', 'python3', 'sub']);

        // Not even the directory.
        rmSync(lib, { recursive: true });
        if (identity === 'user') {
          const homeless = await run();
          expect(await homeless.ends()).toMatchObject({ code: 171 });
          expect(homeless.stderr).toMatch(
            new RegExp(`cannot show .* ${data}: there is no ${lib}, and nothing can stand in for ${bed.dir}`),
          );
          expect(homeless.stderr).toContain(`Try: make a place for it: mkdir -p '${lib}' && touch '${data}'`);
          mkdirSync(lib);
          for (const path of [data, library, python]) writeFileSync(path, '');
        }
        const last = await run(knowing);
        await goesOn(last);
        writeFileSync(stop, '');
        expect(await last.ends()).toMatchObject({ code: 0 });
        expect(last.stdout).toMatch(/^child A+ {2}data libz\.so python3 False\ndone\n$/m);
        expect(existsSync(lib)).toBe(identity === 'user');
        if (identity === 'user')
          expect([readdirSync(lib), readFileSync(data, 'utf8')]).toEqual([['data', 'libz.so', 'python3'], '']);
      });
    }, 180_000);
  });
}
