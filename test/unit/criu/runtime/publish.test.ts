// SPDX-License-Identifier: Apache-2.0
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, utimesSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { withBuildFolder } from '../../../../src/criu/runtime/publish.js';
import { runTool } from '../../../../src/criu/runtime/tool.js';

let home = '';
beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), 'ff-publish-'));
});
afterEach(() => rmSync(home, { recursive: true }));

const MODULE = new URL('../../../../src/criu/runtime/publish.js', import.meta.url).href;

/** One install of a tree with one file, in a process of its own as installs are. */
const PROGRAM = `
import { mkdirSync, writeFileSync } from 'node:fs';
import { publish, withBuildFolder } from '${MODULE}';
const [home, content, replace] = process.argv.slice(1);
const isNew = await withBuildFolder(home, async (folder) => {
  const built = folder + '/runtime';
  mkdirSync(built);
  writeFileSync(built + '/file', content);
  return await publish(home, built, '1', replace === 'true');
});
process.stdout.write(String(isNew));
`;

async function install(content: string, replace = false): Promise<boolean> {
  const words = [process.execPath, '--input-type=module', '--eval', PROGRAM, home, content, String(replace)];
  const result = await runTool(words, { timeoutMs: 20_000 });
  if (!result.ok) throw new Error(result.stderr);
  return result.stdout === 'true';
}

const current = (): string => readFileSync(join(home, 'current/file'), 'utf8');

describe('publish', () => {
  it('gives the tree its name and switches current to it', async () => {
    expect(await install('a')).toBe(true);
    expect(current()).toBe('a');
    expect(readdirSync(home).sort()).toEqual(['current', 'runtime-1']);
  });

  it('keeps the one that is there, unless it is to be replaced; then the old one stays too', async () => {
    await install('a');
    expect(await install('b')).toBe(false);
    expect(current()).toBe('a');
    expect(await install('c', true)).toBe(true);
    expect(current()).toBe('c');
    expect(readFileSync(join(home, 'runtime-1/file'), 'utf8')).toBe('a');
  });

  it('lets one of many at once win, and leaves nothing of the others', async () => {
    const won = await Promise.all(Array.from({ length: 6 }, async () => await install('a')));
    expect(won.filter((isNew) => isNew)).toHaveLength(1);
    expect(readdirSync(home).sort()).toEqual(['current', 'runtime-1']);
    expect(current()).toBe('a');
  });
});

describe('withBuildFolder', () => {
  it('removes what crashed installs left, but not what runs', async () => {
    mkdirSync(join(home, '.building-old'));
    utimesSync(join(home, '.building-old'), 1, 1);
    mkdirSync(join(home, '.building-new'));
    await install('a');
    expect(readdirSync(home).sort()).toEqual(['.building-new', 'current', 'runtime-1']);
  });

  it('removes its own when the work fails, and says what to do', async () => {
    const full = Object.assign(new Error('full'), { code: 'ENOSPC', syscall: 'write' });
    const failing = withBuildFolder(home, () => Promise.reject(full));
    await expect(failing).rejects.toMatchObject({ code: 'host', hint: expect.stringContaining('--dir') });
    expect(readdirSync(home)).toEqual([]);
  });
});
