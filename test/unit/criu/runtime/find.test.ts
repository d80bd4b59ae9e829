// SPDX-License-Identifier: Apache-2.0
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { otherCandidates } from '../../../../src/criu/runtime/candidates.js';
import { findCriu } from '../../../../src/criu/runtime/find.js';

let folder = '';
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'ff-find-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

/** A stand-in that says a version, is content or not, and counts how often it was started. */
function fakeCriu(name: string, version: string, checkCode = 0): string {
  const path = join(folder, name);
  mkdirSync(dirname(path), { recursive: true });
  const script = `#!/bin/sh
echo x >>"$0.calls"
case $1 in
--version) echo 'Version: ${version}' ;;
check) [ ${checkCode} = 0 ] || echo 'Error (criu/vdso.c:1): vdso: Unexpected rt vDSO area bounds' >&2; exit ${checkCode} ;;
esac
`;
  writeFileSync(path, script);
  chmodSync(path, 0o755);
  return path;
}

const find = async (env: NodeJS.ProcessEnv) =>
  await findCriu({
    env: { FF_HOME: join(folder, 'home'), ...env },
    privileged: true,
    cacheDirectory: join(folder, 'cache'),
  });

/** Debian's own CRIU would be found beside the stand-ins. */
const systemHasOne = ['/usr/local/sbin/criu', '/usr/sbin/criu', '/sbin/criu'].some(existsSync);

describe('findCriu', () => {
  it('takes $FF_CRIU before anything else', async () => {
    const chosen = fakeCriu('mine', '4.2.1');
    fakeCriu('bin/criu', '4.3');
    const found = await find({ FF_CRIU: chosen, PATH: join(folder, 'bin') });
    expect(found).toEqual({ command: [chosen], version: '4.2.1', source: 'FF_CRIU' });
    // It is run in other directories than ours.
    const near = await find({ FF_CRIU: relative(process.cwd(), chosen), PATH: '' });
    expect(near.command).toEqual([chosen]);
  });

  it.each([
    ['does not exist', () => '/nonexistent/criu', 'no such executable'],
    ['is too old', () => fakeCriu('old', '3.17.1'), 'too old'],
    ['fails its check', () => fakeCriu('vdso', '4.2.1', 1), 'vDSO'],
    ['is no CRIU', () => '/bin/true', '--version'],
  ])('does not fall back when $FF_CRIU %s', async (_what, chosen, reason) => {
    fakeCriu('bin/criu', '4.3');
    await expect(find({ FF_CRIU: chosen(), PATH: join(folder, 'bin') })).rejects.toThrow(reason);
  });

  it('takes the first on PATH that works', async () => {
    fakeCriu('a/criu', '3.17.1');
    fakeCriu('b/criu', '4.2.1', 1);
    const good = fakeCriu('c/criu', '4.2.1');
    const found = await find({ PATH: ['a', 'b', 'c'].map((name) => join(folder, name)).join(':') });
    expect(found).toMatchObject({ command: [good], source: 'PATH' });
  });

  it('passes over one that can do less when a better one follows, and takes it otherwise', async () => {
    const less = fakeCriu('a/criu', '4.1.1');
    const good = fakeCriu('b/criu', '4.2.1');
    const both = await find({ PATH: `${folder}/a:${folder}/b` });
    expect(both.command).toEqual([good]);
    rmSync(good);
    if (systemHasOne) return;
    const one = await find({ PATH: `${folder}/a:${folder}/b` });
    expect(one.command).toEqual([less]);
    expect(one.warning).toContain('sockets');
  });

  it('names each candidate and why not, when none works', async () => {
    fakeCriu('a/criu', '3.17.1');
    const failure = await find({ PATH: join(folder, 'a') }).catch((error: unknown) => error);
    if (systemHasOne) return;
    expect(failure).toMatchObject({ code: 'host', hint: 'fastfreeze install' });
    expect(String(failure)).toContain(`${folder}/a/criu: version 3.17.1 is too old`);
  });

  it('starts CRIU only the first time', async () => {
    const path = fakeCriu('a/criu', '4.2.1');
    await find({ PATH: join(folder, 'a') });
    const calls = readFileSync(`${path}.calls`, 'utf8');
    await find({ PATH: join(folder, 'a') });
    expect(readFileSync(`${path}.calls`, 'utf8')).toBe(calls);
  });

  it("takes the package's own before those of the machine", async () => {
    const machines = fakeCriu('a/criu', '4.2.1');
    const packaged = join(folder, 'criu/root');
    const env = { PATH: join(folder, 'a'), FF_HOME: join(folder, 'home') };
    const without = await otherCandidates(env, packaged);
    expect(without[0]).toMatchObject({ source: 'PATH', path: machines });
    const ours = fakeCriu('criu/root/usr/sbin/criu', '4.2.1');
    const [first, second] = await otherCandidates(env, packaged);
    expect(first).toMatchObject({ source: 'package', path: ours, root: packaged });
    expect(second).toMatchObject({ source: 'PATH', path: machines });
  });

  it('does not look into folders named relatively', async () => {
    fakeCriu('a/criu', '4.2.1');
    const found = await otherCandidates({ PATH: 'a::.', FF_HOME: join(folder, 'home') });
    expect(found.map((one) => one.path).filter((path) => !path.startsWith('/'))).toEqual([]);
  });
});
