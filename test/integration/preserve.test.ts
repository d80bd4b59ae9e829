// SPDX-License-Identifier: Apache-2.0
// Files that travel in the image: what the application finds after a restore is what it had at the checkpoint.
import {
  chmodSync,
  chownSync,
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { describe, expect, test } from '@jest/globals';
import { readXattrs, writeXattr } from '../../src/linux/xattr.js';
import { USER_ID, withBed, type Bed, type Identity } from '../support/bed.js';
import type { Job } from '../support/job.js';
import { descendantsOf, inspect, signalPid } from '../support/processes.js';
import { PYTHON } from '../support/stage.js';
import { until } from '../support/until.js';

/**
 * Counts: a row in a database, a line in a log that is open for appending, a number in a shared mapping, a byte in a
 * temporary file, a file of its own, then a line to stdout. Before each it checks that all are as it left them, and ends
 * at once when they are not.
 */
const COUNTER = `
import mmap, os, sqlite3, sys, tempfile, time
data, shm, stop, journal = sys.argv[1:5]
os.makedirs(data + "/parts")
log = open(data + "/log", "ab", buffering=0)
db = sqlite3.connect(data + "/db", isolation_level=None)
db.execute("pragma journal_mode = " + journal)
db.execute("create table t (n integer)")
with open(shm, "wb") as f: f.truncate(4096)
with open(shm, "r+b") as f: shared = mmap.mmap(f.fileno(), 4096)
temporary = tempfile.NamedTemporaryFile(buffering=0)
n = 0
def expect(what, found, wanted):
    if found != wanted:
        print("WRONG", what, found, wanted, flush=True)
        sys.exit(3)
while not os.path.exists(stop):
    expect("rows", db.execute("select count(*) from t").fetchone()[0], n)
    expect("lines", open(data + "/log").read().count("\\n"), n)
    expect("parts", len(os.listdir(data + "/parts")), n)
    expect("shared", int.from_bytes(shared[:8], "little"), n)
    with open(shm, "rb") as f: expect("shared file", int.from_bytes(f.read(8), "little"), n)
    expect("temporary", os.listdir("/var/tmp/fastfreeze/tmp"), [os.path.basename(temporary.name)])
    expect("its size", os.path.getsize(temporary.name), n)
    temporary.write(b"x")
    db.execute("insert into t values (?)", (n,))
    log.write(b"%d\\n" % n)
    with open(data + "/parts/%d" % n, "x") as f: f.write("part")
    n += 1
    shared[:8] = n.to_bytes(8, "little")
    print(n, flush=True)
    time.sleep(0.03)
expect("the log", open(data + "/log").read(), "".join("%d\\n" % i for i in range(n)))
expect("the database", [row[0] for row in db.execute("select n from t")], list(range(n)))
print("done", flush=True)
`;

interface Counter {
  readonly image: string;
  readonly data: string;
  readonly shm: string;
  readonly stop: string;
  readonly command: readonly string[];
}

function counter(bed: Bed, journal: 'wal' | 'delete'): Counter {
  const [data, shm, stop] = [bed.path('work', 'data'), `/dev/shm/ff-${bed.id}`, bed.path('stop')];
  const image = `file:${bed.path('image')}`;
  return { image, data, shm, stop, command: ['python3', bed.write('counter.py', COUNTER), data, shm, stop, journal] };
}

async function crash(bed: Bed, job: Job): Promise<void> {
  await job.progresses(4);
  bed.leavesState = true;
  signalPid(job.pid, 'SIGKILL');
  await job.ends();
  await until('the whole job to be gone', () => bed.survivors().length === 0, 20_000);
}

async function endsWell(job: Job, stop: string): Promise<void> {
  await job.progresses(4);
  writeFileSync(stop, '');
  expect(await job.ends()).toMatchObject({ code: 0 });
  expect(job.stdout).toMatch(/^done$/m);
}

for (const identity of ['root', 'user'] as const satisfies readonly Identity[]) {
  describe(`as ${identity}: preserved files`, () => {
    test('are at a restore what they were at the checkpoint, after a crash and elsewhere', async () => {
      await withBed(identity, async (bed) => {
        const journal = identity === 'root' ? 'wal' : 'delete';
        const { image, data, shm, stop, command } = counter(bed, journal);
        try {
          const options = ['--image-url', image, '--preserve-path', data, '--preserve-open-files'];
          const job = bed.run(await bed.place(), options, command);
          await job.ready('scratch');
          await job.progresses(4);
          // Both identities find a file there that they may not read, or that nobody minds.
          writeFileSync(`${data}/roots-own`, 'x');
          chmodSync(`${data}/roots-own`, 0o600);
          // And one that is of somebody else.
          writeFileSync(`${data}/anothers`, 'y');
          chmodSync(`${data}/anothers`, 0o644);
          chownSync(`${data}/anothers`, 12_345, 23_456);
          const answer = await job.commits(['--leave-running', '--json']);
          const { files } = JSON.parse(answer.stdout) as { files: { entries: number; dataBytes: number } };
          expect(files.entries).toBeGreaterThan(7);
          expect(files.dataBytes).toBeGreaterThan(4096);
          if (identity === 'user') {
            expect(job.stderr).toContain(`${data}/roots-own cannot be read and is not in the image`);
          }
          expect(job.stderr).toMatch(/The image has \d+ preserved files and directories/);
          // Everything of the counter's is preserved: nobody needs advice.
          expect(job.stderr).not.toMatch(/--preserve-open-files takes them along/);
          await crash(bed, job);

          // Here the files are as the crash left them.
          const inodes = [statSync(`${data}/db`).ino, statSync(`${data}/log`).ino];
          const again = bed.run(await bed.place({ clockOffsetS: 500 }), options, command);
          await again.ready('restored');
          expect(again.stderr).toMatch(
            /that were not there at the checkpoint were set aside, in .*\/data\/\.fastfreeze-set-aside/,
          );
          await again.progresses(4);
          expect([statSync(`${data}/db`).ino, statSync(`${data}/log`).ino]).toEqual(inodes);
          // The options of the first run are remembered by the image.
          await again.freeze();

          // There are none elsewhere. SQLite, where it keeps a rollback journal, refuses a database that is another file
          // by its inode (docs/limitations.md): then that one is here.
          const kept = bed.path('work', 'db');
          if (journal === 'delete') renameSync(`${data}/db`, kept);
          rmSync(data, { recursive: true });
          rmSync(shm);
          if (journal === 'delete') {
            bed.directory('work', 'data');
            renameSync(kept, `${data}/db`);
          }
          const last = bed.run(await bed.place({ clockOffsetS: 900 }), ['--image-url', image], []);
          await last.ready('restored');
          const { uid, gid } = statSync(`${data}/anothers`);
          expect([uid, gid]).toEqual(identity === 'root' ? [12_345, 23_456] : [USER_ID, USER_ID]);
          if (identity === 'user')
            expect(last.stderr).toMatch(/of the preserved files could not be brought back here: .*owners/);
          const inspected = await last.place.fastfreeze(['inspect', image]);
          expect(inspected.stdout).toMatch(new RegExp(`preserved.*${data}`));
          await endsWell(last, stop);
        } finally {
          rmSync(shm, { force: true });
        }
      });
    }, 180_000);
  });
}

test('as root: a checkpoint may name more of them, and those of before are not forgotten', async () => {
  await withBed('root', async (bed) => {
    const [first, second, stop] = [bed.directory('work', 'first'), bed.directory('work', 'second'), bed.path('stop')];
    const image = `file:${bed.path('image')}`;
    const script = `exec 3>>"$2/open"; while [ ! -e "$1" ]; do echo line >&3; echo tick; sleep 0.05; done; cat "$2/tool"`;
    const command = ['/bin/sh', '-c', script, 'sh', stop, second];
    writeFileSync(`${second}/tool`, 'what it was\n');
    chmodSync(`${second}/tool`, 0o4755);
    writeFileSync(`${second}/capable`, '');
    writeXattr(Buffer.from(`${second}/capable`), CAPABILITIES, CAP_NET_RAW);
    mkdirSync(`${first}/empty`);
    writeFileSync(`${first}/secret`, 'of this machine\n');
    const except = ['--preserve-except', `${first}/secret:${first}/later`];
    const covering = ['run', '--image-url', image, '--preserve-path', first, '--preserve-except', first, '--', 'true'];
    expect(await (await bed.place()).fastfreeze(covering)).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('nothing would be preserved of') as unknown,
    });
    const job = bed.run(await bed.place(), ['--image-url', image, '--preserve-path', first, ...except], command);
    await job.ready('scratch');
    const { stderr } = await job.commits(['--leave-running']);
    expect(stderr).toMatch(/^Note: The application has .*\/second\/open open for writing, not in the image/m);
    // Said once by run, since what it has open is not in the image.
    await job.says(/The application has .*\/second\/open open for writing, not in the image.*--preserve-open-files/);
    for (const wrong of ['/', '/proc/self', `${first}:/sys`]) {
      const refused = await job.checkpoint(['--preserve-path', wrong]);
      expect(refused).toMatchObject({ code: 2 });
      expect(refused.stderr).toMatch(/^Error: .*--preserve-path/);
    }
    await job.commits(['--leave-running', '--preserve-path', second]);
    await job.freeze(['--preserve-open-files']);
    expect(job.stderr.match(/open for writing, not in the image/g)).toHaveLength(1);

    for (const setuid of [false, true]) {
      rmSync(first, { recursive: true });
      rmSync(second, { recursive: true });
      const others = ['secret', 'later'].map((name) => `${first}/${name}`);
      if (setuid) mkdirSync(first);
      if (setuid) for (const path of others) writeFileSync(path, 'of the next\n');
      const more = setuid ? ['--preserve-setuid', ...except] : [];
      const again = bed.run(await bed.place(), ['--image-url', image, '--generation', '3', ...more], command);
      await again.ready('restored');
      expect(existsSync(`${first}/empty`)).toBe(true);
      expect(others.map((path) => (existsSync(path) ? readFileSync(path, 'utf8') : ''))).toEqual(
        setuid ? ['of the next\n', 'of the next\n'] : ['', ''],
      );
      expect(statSync(`${second}/tool`).mode & 0o7777).toBe(setuid ? 0o4755 : 0o755);
      const capable = readXattrs(Buffer.from(`${second}/capable`)).get(CAPABILITIES);
      expect(capable).toEqual(setuid ? CAP_NET_RAW : undefined);
      if (!setuid)
        expect(again.stderr).toMatch(/could not be brought back here: capabilities of files \(--preserve-setuid\)/);
      await again.progresses(2);
      if (!setuid) await again.freeze();
      else {
        writeFileSync(stop, '');
        expect(await again.ends()).toMatchObject({ code: 0 });
        expect(again.stdout).toMatch(/tick\nwhat it was\n$/);
        expect(readFileSync(`${second}/open`, 'utf8')).toMatch(/^(line\n)+$/);
      }
    }
  });
}, 180_000);

const CAPABILITIES = 'security.capability';
/** As the kernel has it: its version with the effective bit, then permitted and inheritable sets of 32, twice. */
const CAP_NET_RAW = Buffer.from('0100000200200000000000000000000000000000', 'hex');

test('as root: a restore that is killed while it changes files leaves each old or new, and the next brings all back', async () => {
  await withBed('root', async (bed) => {
    const [data, stop] = [bed.directory('work', 'data'), bed.path('stop')];
    const options = ['--image-url', `file:${bed.path('image')}`, '--preserve-path', data];
    const command = ['sh', '-c', 'until [ -e "$0" ]; do echo tick; sleep 0.05; done', stop];
    const names = Array.from({ length: 4000 }, (_, i) => `${data}/${String(i).padStart(5, '0')}`);
    const write = (text: string): void => names.forEach((name) => writeFileSync(name, text.repeat(50)));
    const states = (): Record<string, number> => {
      const counts: Record<string, number> = { old: 0, new: 0, none: 0 };
      for (const name of names) {
        const text = existsSync(name) ? readFileSync(name, 'utf8') : 'none';
        const state = ['old', 'new'].find((one) => text === one.repeat(50)) ?? text;
        counts[state] = (counts[state] ?? 0) + 1;
      }
      return counts;
    };
    write('old');
    const job = bed.run(await bed.place(), options, command);
    await job.progresses(2);
    await job.freeze();
    write('new');

    const killed = bed.run(await bed.place(), options, command);
    const [first = ''] = names;
    await until('the first file', () => existsSync(first) && readFileSync(first, 'utf8').startsWith('old'));
    const supervisor = descendantsOf(killed.pid).find((pid) => inspect(pid)?.command.includes('supervisor-main'));
    bed.leavesState = true;
    signalPid(supervisor ?? 0, 'SIGKILL');
    await killed.ends();
    const found = states();
    expect([found['old'], found['new']]).toEqual([expect.any(Number), expect.any(Number)]);
    expect(Object.keys(found)).toEqual(['old', 'new', 'none']);
    expect(found['none']).toBeLessThan(2);
    // Else it was too late for what this is about.
    expect(found['new']).toBeGreaterThan(0);

    const again = bed.run(await bed.place(), options, command);
    await again.ready('restored');
    expect(states()).toEqual({ old: names.length, new: 0, none: 0 });
    writeFileSync(stop, '');
    expect(await again.ends()).toMatchObject({ code: 0 });
    expect(bed.list('work', 'data').filter((name) => !/^\d{5}$/.test(name))).toEqual([]);
  });
}, 90_000);

test('as user: a damaged image costs no file, and the output of run in a preserved directory is its caller’s', async () => {
  await withBed('user', async (bed) => {
    const [data, image, stop] = [bed.directory('work', 'data'), bed.path('image'), bed.path('stop')];
    const out = bed.write('work/data/job.out', '');
    const script = `import os, sys, time
memory = os.urandom(6 << 20)
n = 0
while not os.path.exists(sys.argv[2]):
    with open(sys.argv[1] + "/notes", "w") as f: f.write("note %d" % n)
    print(n, flush=True)
    n += 1
    time.sleep(0.05)
print("done", len(memory), flush=True)
`;
    const command = [PYTHON, bed.write('notes.py', script), data, stop];
    const options = ['--image-url', `file:${image}`, '--preserve-path', data, '--num-shards', '1'];
    const lines = (): string[] => readFileSync(out, 'utf8').split('\n').slice(0, -1);
    const run = async (): Promise<Job> => {
      const fd = openSync(out, 'a');
      const job = bed.run(await bed.place(), options, command, { stdoutFd: fd });
      closeSync(fd);
      return job;
    };
    const job = await run();
    await job.ready('scratch');
    await until('some lines', () => lines().length > 2);
    await job.commits(['--leave-running']);
    const before = lines().length;
    await until('more lines', () => lines().length > before + 3);
    bed.leavesState = true;
    signalPid(job.pid, 'SIGKILL');
    await job.ends();
    await until('the whole job to be gone', () => bed.survivors().length === 0, 20_000);

    const [shard = ''] = bed.list('image').filter((name) => name.endsWith('.ffs'));
    const whole = readFileSync(`${image}/${shard}`);
    const damaged = Buffer.from(whole);
    damaged[damaged.length >> 1] = (damaged[damaged.length >> 1] ?? 0) ^ 1;
    writeFileSync(`${image}/${shard}`, damaged);
    const [notes, output] = [readFileSync(`${data}/notes`, 'utf8'), readFileSync(out, 'utf8')];
    const refused = await run();
    expect(await refused.ends()).toMatchObject({ code: 171 });
    expect(refused.stderr).toMatch(/is damaged/);
    expect(readFileSync(`${data}/notes`, 'utf8')).toBe(notes);
    expect(bed.list('work', 'data')).toEqual(['job.out', 'notes']);

    writeFileSync(`${image}/${shard}`, whole);
    const again = await run();
    await again.ready('restored');
    await until('more lines', () => lines().length > output.split('\n').length + 3);
    writeFileSync(stop, '');
    expect(await again.ends()).toMatchObject({ code: 0 });
    // Nothing of what the crashed run had passed on is cut off, and the rest is behind it.
    expect(readFileSync(out, 'utf8').startsWith(output)).toBe(true);
    expect(lines().at(-1)).toBe(`done ${6 << 20}`);
  });
}, 120_000);

test('paths within the images’ own place are refused before anything starts', async () => {
  await withBed('root', async (bed) => {
    const place = await bed.place();
    const ran = bed.path('ran');
    for (const path of [bed.path('images'), bed.path('images', 'below')]) {
      const options = ['--image-url', `file:${bed.path('images')}`, '--preserve-path', path];
      const answer = await place.fastfreeze(['run', ...options, '--', 'touch', ran]);
      expect(answer).toMatchObject({
        code: 2,
        stderr: expect.stringMatching(/^Error: .*the images are to lie there/m),
      });
    }
    expect(existsSync(ran)).toBe(false);
  });
}, 30_000);
