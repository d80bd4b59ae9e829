// SPDX-License-Identifier: Apache-2.0
/* What a program finds that was started by exec-main, and how failures are told. */
import { afterAll, describe, expect, jest, test } from '@jest/globals';
import { spawn } from 'node:child_process';
import { closeSync, openSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import type { ExecPlan } from '../../../src/container/exec-plan.js';
import { askScript, makeDirectory, moduleUrl, ownPids, within } from '../linux/support.js';

jest.setTimeout(30_000);

const EXEC_MAIN = fileURLToPath(new URL('../../../src/container/exec-main.js', import.meta.url));
const strangers = [openSync('/dev/null', 'r'), openSync('/dev/null', 'r')];
afterAll(() => strangers.forEach((fd) => closeSync(fd)));

interface End {
  readonly code: number | null;
  readonly signal: string | null;
  readonly stdout: string;
  /** What came over the plan's descriptor: nothing when exec succeeded. */
  readonly said: string;
}

async function exec(command: readonly string[], plan: Partial<ExecPlan> = {}): Promise<End> {
  const child = spawn(process.execPath, ['--no-warnings', EXEC_MAIN], {
    stdio: ['ignore', 'pipe', 'inherit', 'pipe', ...strangers],
    detached: true,
    env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', GIVEN: 'outside', REMOVED: 'yes' },
  });
  const channel = child.stdio[3] as Readable & Writable;
  let stdout = '';
  let said = '';
  child.stdout?.on('data', (piece: Buffer) => (stdout += piece.toString()));
  channel.on('data', (piece: Buffer) => (said += piece.toString()));
  const full: ExecPlan = { terminalFds: [], ignoredSignals: [], setEnv: {}, unsetEnv: [], ...plan, command };
  channel.write(`${JSON.stringify(full)}\n`);
  return await within(
    'the program',
    new Promise<End>((resolve) =>
      child.once('close', (code, signal) => resolve({ code, signal, stdout: stdout.trim(), said })),
    ),
  );
}

const shell = (text: string, plan?: Partial<ExecPlan>): Promise<End> => exec(['bash', '-c', text], plan);

describe('a program that was started', () => {
  test('has its three streams and no other descriptor', async () => {
    expect(await exec(['ls', '/proc/self/fd'])).toEqual({ code: 0, signal: null, stdout: '0\n1\n2\n3', said: '' });
  });

  test('finds every signal as a shell would give it', async () => {
    const masks = await exec(['grep', '-E', '^Sig(Blk|Ign)', '/proc/self/status']);
    expect(masks.stdout.split('\n')).toEqual(['SigBlk:\t0000000000000000', 'SigIgn:\t0000000000000000']);
    // A writer whose reader has gone dies of SIGPIPE.
    expect((await shell('yes | head -1; echo ${PIPESTATUS[0]}')).stdout).toBe('y\n141');
    expect(await shell('kill -XFSZ $$')).toMatchObject({ code: null, signal: 'SIGXFSZ' });
  });

  test('ignores what its caller ignores (nohup), and nothing else', async () => {
    const ignored = await exec(['grep', '^SigIgn', '/proc/self/status'], { ignoredSignals: [1, 64] });
    expect(ignored.stdout).toBe('SigIgn:\t8000000000000001');
  });

  test('has the limit of open files that its caller had, and may raise it again', async () => {
    expect((await shell('ulimit -Sn', { openFilesLimit: 256 })).stdout).toBe('256');
    expect((await shell('ulimit -Sn 300 && ulimit -Sn', { openFilesLimit: 256 })).stdout).toBe('300');
  });

  test('has the environment of its caller but for what the plan says', async () => {
    const plan = { setEnv: { FASTFREEZE: '1', ODD: 'a b=c\n' }, unsetEnv: ['REMOVED', 'NEVER_THERE'] };
    const { stdout } = await shell('printf %s "$GIVEN|${REMOVED-none}|$FASTFREEZE|$ODD|"', plan);
    expect(stdout).toBe('outside|none|1|a b=c\n|');
  });

  test('reads a file as standard input from where the caller was in it', async () => {
    const path = join(makeDirectory(), 'input');
    writeFileSync(path, '0123456789');
    const { stdout } = await exec(['cat'], { stdinFile: { path, offset: 4, flags: 0 } });
    expect(stdout).toBe('456789');
  });

  test('gets its words as they are', async () => {
    const words = ['a b', '', '"', '$HOME', '-x', 'ü', '\\n'];
    const program = 'import json,sys; print(json.dumps(sys.argv[1:]))';
    expect(JSON.parse((await exec(['python3', '-c', program, ...words])).stdout)).toEqual(words);
  });

  test('keeps its orphans', async () => {
    const { stdout } = await shell('echo $$; (sh -c "sleep 0.3; ps -o ppid= -p \\$\\$" &) ; sleep 0.8');
    const [own, parent] = stdout.split(/\s+/);
    expect(parent).toBe(own);
  });
});

describe('a program that cannot be started', () => {
  test.each([
    [['no-such-program-here'], 127, 'ENOENT'],
    [['/etc/passwd'], 126, 'EACCES'],
    [['/'], 126, 'EACCES'],
    [['/etc/passwd/x'], 126, 'ENOTDIR'],
    [[], 126, 'no command'],
  ])('%j is told: %d, %s', async (command, code, reason) => {
    const end = await exec(command);
    expect(end.code).toBe(code);
    expect((JSON.parse(end.said) as { message: string }).message).toContain(reason);
  });

  test('nor can one whose input has gone', async () => {
    const path = join(makeDirectory(), 'gone');
    const end = await exec(['cat'], { stdinFile: { path, offset: 0, flags: 0 } });
    expect(end.code).not.toBe(0);
    expect(end.said).toContain(path);
  });
});

describe('the application', () => {
  const start = (command: readonly string[], then: string): string => `
    import { openSync } from 'node:fs';
    import { startApp } from '${moduleUrl('container/app.js')}';
    import { createChildren } from '${moduleUrl('container/children.js')}';
    const children = createChildren();
    const nothing = openSync('/dev/null', 'r+');
    const plan = { command: ${JSON.stringify(command)}, ignoredSignals: [], setEnv: {}, unsetEnv: [] };
    const streams = { stdio: [nothing, nothing, nothing], terminalFds: [] };
    const start = () => startApp({ prefix: [], plan, streams, children, timeoutMs: 20000 });
    ${then}
    children.close();`;
  const report = 'const app = await start(); console.log(JSON.stringify([app.pid, await app.exited]));';

  test('is PID 1000, and its end is told', async () => {
    expect(await askScript(start(['sh', '-c', 'test $$ = 1000 && exit 33'], report), ownPids())).toEqual([
      1000,
      { code: 33, signal: null },
    ]);
    expect(await askScript(start(['sh', '-c', 'kill -TERM $$'], report), ownPids())).toEqual([
      1000,
      { code: null, signal: 15 },
    ]);
  });

  test('that does not exist is refused with the way out', async () => {
    const refused = 'await start().catch((e) => console.log(JSON.stringify([e.code, e.message, e.hint])));';
    expect(await askScript(start(['no-such-program'], refused), ownPids())).toEqual([
      'app',
      'cannot start no-such-program: there is no such program',
      'check the name and PATH',
    ]);
  });
});
