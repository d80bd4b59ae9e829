// SPDX-License-Identifier: Apache-2.0
import {
  appendFileSync,
  chmodSync,
  closeSync,
  copyFileSync,
  fsyncSync,
  ftruncateSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { SET_ASIDE, hiddenName, stagedName } from '../../../src/files/own-names.js';
import { stageFiles } from '../../../src/files/stage.js';
import { setModifiedTime } from '../../../src/linux/file-data.js';
import { makeFifo } from '../../../src/linux/fds.js';
import { writeXattr } from '../../../src/linux/xattr.js';
import { makeDirectory, noise } from '../image/support.js';
import { askScript, moduleUrl } from '../linux/support.js';
import { type Captured, bringBack, capture, look } from './support.js';

/** A tree with one of everything. */
function plant(): { readonly base: string; readonly root: string } {
  const base = makeDirectory();
  const root = join(base, 'data');
  mkdirSync(join(root, 'sub', 'empty'), { recursive: true });
  writeFileSync(join(root, 'a'), 'first\n');
  writeFileSync(join(root, 'empty'), '');
  writeFileSync(join(root, 'sub', 'large'), noise(3_300_001, 1));
  writeFileSync(join(root, 'sub', 'naïve ü "x"\n'), 'odd name');
  writeFileSync(Buffer.concat([Buffer.from(`${root}/not-utf8-`), Buffer.from([0xff, 0xfe])]), 'bytes');
  linkSync(join(root, 'a'), join(root, 'sub', 'same-as-a'));
  symlinkSync('../a', join(root, 'sub', 'link'));
  symlinkSync('/nowhere/at all', join(root, 'dangling'));
  makeFifo(join(root, 'pipe'));
  const sparse = openSync(join(root, 'sparse'), 'w');
  writeSync(sparse, noise(70_000, 2), 0, 70_000, 5 << 20);
  ftruncateSync(sparse, 9 << 20);
  fsyncSync(sparse);
  closeSync(sparse);
  chmodSync(join(root, 'a'), 0o640);
  chmodSync(join(root, 'sub'), 0o1750);
  writeXattr(Buffer.from(join(root, 'a')), 'user.note', Buffer.from('grün'));
  setModifiedTime(Buffer.from(join(root, 'a')), 1_700_000_000_123_456_789n);
  setModifiedTime(Buffer.from(join(root, 'dangling')), 1_600_000_000_000_000_001n);
  setModifiedTime(Buffer.from(join(root, 'sub')), -1n);
  return { base, root };
}

describe('preserved files', () => {
  test('come back whole where there is nothing, names, links, holes, modes, times and attributes', async () => {
    const { base, root } = plant();
    const before = look(root);
    const captured = await capture([root]);
    expect(captured).toMatchObject({ roots: [root], entries: Object.keys(before).length, warnings: [] });
    // Of the sparse file only what is not a hole.
    expect(captured.dataBytes).toBeLessThan(3_300_001 + (1 << 20));
    rmSync(base, { recursive: true });
    expect(await bringBack(captured)).toEqual([]);
    expect(look(root)).toEqual(before);
    expect(statSync(join(root, 'sparse')).blocks * 512).toBeLessThan(2 << 20);
    expect(readdirSync(base)).toEqual(['data']);
  });

  test('that are as they were are not touched', async () => {
    const { root } = plant();
    const captured = await capture([root]);
    const changedNs = (): bigint[] =>
      Object.keys(look(root)).map((path) => lstatSync(Buffer.from(path, 'latin1'), { bigint: true }).ctimeNs);
    const before = changedNs();
    expect(await bringBack(captured)).toEqual([]);
    expect(changedNs()).toEqual(before);
  });

  test('that have changed become what they were, and stay the same files', async () => {
    const { root } = plant();
    const before = look(root);
    const captured = await capture([root]);
    const inode = (name: string): number => statSync(join(root, name)).ino;
    const inodes = ['a', 'sub/large', 'sparse', 'empty'].map(inode);
    appendFileSync(join(root, 'a'), 'more\n');
    const large = openSync(join(root, 'sub', 'large'), 'r+');
    writeSync(large, 'changed', 1_000_000);
    closeSync(large);
    truncateSync(join(root, 'sparse'), 6 << 20);
    const sparse = openSync(join(root, 'sparse'), 'r+');
    writeSync(sparse, 'where a hole was', 1 << 20);
    closeSync(sparse);
    writeFileSync(join(root, 'empty'), 'not any more');
    chmodSync(join(root, 'a'), 0o600);
    unlinkSync(join(root, 'sub', 'link'));
    symlinkSync('elsewhere', join(root, 'sub', 'link'));
    unlinkSync(join(root, 'sub', 'same-as-a'));
    expect(await bringBack(captured)).toEqual([]);
    expect(look(root)).toEqual(before);
    expect(['a', 'sub/large', 'sparse', 'empty'].map(inode)).toEqual(inodes);
  });

  test('do not change what has become another name of them, in the preserved paths or outside', async () => {
    const { base, root } = plant();
    for (const [name, content] of Object.entries({ current: 'v5', previous: 'v4', same: 'v5', long: 'v1 and more' })) {
      writeFileSync(join(root, name), content);
    }
    const before = look(root);
    const captured = await capture([root]);
    const link = (from: string, to: string): void => {
      rmSync(to, { force: true });
      linkSync(from, to);
    };
    link(join(root, 'current'), join(root, 'previous'));
    // The same bytes: only the time is that of another file.
    link(join(root, 'current'), join(root, 'same'));
    setModifiedTime(Buffer.from(join(root, 'current')), before[join(root, 'current')]?.modifiedNs ?? 0n);
    const backup = join(base, 'backup');
    mkdirSync(backup);
    truncateSync(join(root, 'sparse'), 10 << 20);
    const outside = ['long', 'a', 'sparse', 'empty'];
    for (const name of outside) link(join(root, name), join(backup, name));
    // One to be written, one only to be cut, one that is given other attributes.
    appendFileSync(join(root, 'long'), ', longer');
    writeFileSync(join(root, 'a'), 'other\n');
    chmodSync(join(root, 'empty'), 0o600);
    setModifiedTime(Buffer.from(join(root, 'empty')), 5n);
    const kept = look(backup);
    expect(await bringBack(captured)).toEqual([]);
    expect(look(root)).toEqual(before);
    expect(statSync(join(root, 'sparse')).blocks * 512).toBeLessThan(2 << 20);
    const singly = Object.entries(kept).map(([path, seen]) => [path, seen.links === 0 ? seen : { ...seen, links: 1 }]);
    // The image's own link of `a` has followed it; what is left of the old file is the backup's alone.
    expect(look(backup)).toEqual(Object.fromEntries(singly));
    expect(readdirSync(root).filter((name) => name.startsWith('.ff-'))).toEqual([]);
  });

  test('stay the same files with the names that they have in the image', async () => {
    const { base, root } = plant();
    const before = look(root);
    const captured = await capture([root]);
    const { ino } = statSync(join(root, 'a'));
    appendFileSync(join(root, 'a'), 'more\n');
    await bringBack(captured);
    expect(look(root)).toEqual(before);
    expect(statSync(join(root, 'sub', 'same-as-a')).ino).toBe(ino);
    // Not with one more: nor is a file that an interrupted restore has left under another name.
    renameSync(join(root, 'a'), join(root, hiddenName('a')));
    writeFileSync(join(root, hiddenName('a')), 'half');
    linkSync(join(root, hiddenName('a')), join(base, 'backup'));
    await bringBack(captured);
    expect(look(root)).toEqual(before);
    expect(readFileSync(join(base, 'backup'), 'utf8')).toBe('half');
  });

  test('push aside what was not there, and what is of another kind now', async () => {
    const { root } = plant();
    const before = look(root);
    const captured = await capture([root]);
    writeFileSync(join(root, 'sub', 'a-journal'), 'hot');
    mkdirSync(join(root, 'new', 'deep'), { recursive: true });
    writeFileSync(join(root, 'new', 'deep', 'file'), 'kept');
    rmSync(join(root, 'sub', 'empty'), { recursive: true });
    writeFileSync(join(root, 'sub', 'empty'), 'a file now');
    unlinkSync(join(root, 'empty'));
    mkdirSync(join(root, 'empty'));
    const aside = join(root, SET_ASIDE);
    expect(await bringBack(captured)).toEqual([
      `4 files and directories that were not there at the checkpoint were set aside, in ${aside}`,
    ]);
    const [stamp = ''] = readdirSync(aside);
    expect(readFileSync(join(aside, stamp, 'sub', 'a-journal'), 'utf8')).toBe('hot');
    expect(readFileSync(join(aside, stamp, 'new', 'deep', 'file'), 'utf8')).toBe('kept');
    expect(readFileSync(join(aside, stamp, 'sub', 'empty'), 'utf8')).toBe('a file now');
    // The next capture does not take it along, and the next restore leaves it.
    expect((await capture([root])).entries).toBe(captured.entries);
    expect(await bringBack(captured)).toEqual([]);
    // What comes later under the same names costs nothing of it.
    mkdirSync(join(root, 'new'));
    expect(await bringBack(captured)).toHaveLength(1);
    expect(readdirSync(aside)).toHaveLength(2);
    expect(readFileSync(join(aside, stamp, 'new', 'deep', 'file'), 'utf8')).toBe('kept');
    renameSync(aside, `${root}-aside`);
    setModifiedTime(Buffer.from(root), before[root]?.modifiedNs ?? 0n);
    expect(look(root)).toEqual(before);
  });

  test('may be single files, missing ones, and links to elsewhere', async () => {
    const { base, root } = plant();
    symlinkSync(root, join(base, 'link'));
    const log = join(base, 'log');
    writeFileSync(log, 'line\n');
    const captured = await capture([join(base, 'link', 'sub'), join(base, 'link'), log, join(base, 'later')]);
    expect(captured.roots).toEqual([root, join(base, 'later'), join(base, 'link'), log].sort());
    const before = { ...look(root), ...look(log), ...look(join(base, 'link')) };
    writeFileSync(join(base, 'later'), 'made after the checkpoint');
    rmSync(root, { recursive: true });
    unlinkSync(join(base, 'link'));
    appendFileSync(log, 'another\n');
    expect(await bringBack(captured)).toHaveLength(1);
    expect({ ...look(root), ...look(log), ...look(join(base, 'link')) }).toEqual(before);
    expect(readdirSync(base).sort()).toEqual([SET_ASIDE, 'data', 'link', 'log']);
    const [stamp = ''] = readdirSync(join(base, SET_ASIDE));
    expect(readFileSync(join(base, SET_ASIDE, stamp, 'later'), 'utf8')).toBe('made after the checkpoint');
  });

  test('of ours are neither taken nor touched', async () => {
    const { root } = plant();
    const ours = join(root, 'sub', 'images');
    mkdirSync(ours);
    writeFileSync(join(ours, 'shard'), 'x');
    const captured = await capture([root], [ours]);
    writeFileSync(join(ours, 'another'), 'y');
    expect(await bringBack(captured)).toEqual([]);
    expect(readdirSync(ours)).toEqual(['another', 'shard']);
    // It was the application's when the image was made, and is ours now.
    const whole = await capture([root]);
    writeFileSync(join(ours, 'third'), 'z');
    expect(await bringBack(whole, { except: [ours] })).toEqual([]);
    expect(readdirSync(ours)).toEqual(['another', 'shard', 'third']);
  });

  test('that run, and cannot be written, stay as long as they are what they were', async () => {
    const { root } = plant();
    const tool = join(root, 'tool');
    copyFileSync('/bin/sleep', tool);
    chmodSync(tool, 0o755);
    const captured = await capture([root]);
    const { ino } = statSync(tool);
    const running = spawn(tool, ['60'], { stdio: 'ignore' });
    try {
      await once(running, 'spawn');
      expect(() => openSync(tool, 'r+')).toThrow(/ETXTBSY/);
      await bringBack(captured);
      expect(statSync(tool).ino).toBe(ino);
      // An update by rename, and the new one runs.
      unlinkSync(tool);
      copyFileSync('/bin/sleep', tool);
      appendFileSync(tool, 'newer');
      const other = spawn(tool, ['60'], { stdio: 'ignore' });
      try {
        await once(other, 'spawn');
        await bringBack(captured);
        expect(readFileSync(tool).equals(readFileSync('/bin/sleep'))).toBe(true);
        expect(statSync(tool).mode & 0o777).toBe(0o755);
      } finally {
        other.kill('SIGKILL');
        await once(other, 'exit');
      }
    } finally {
      running.kill('SIGKILL');
      await once(running, 'exit');
    }
    expect(readdirSync(root).filter((name) => name.startsWith('.ff-'))).toEqual([]);
  });

  test('do not take images along, nor push them aside', async () => {
    const { root } = plant();
    const images = join(root, 'sub', 'job');
    mkdirSync(images);
    writeFileSync(join(images, 'manifest-00000001.json'), '{}');
    const captured = await capture([root]);
    expect(captured.warnings).toEqual([`${images} holds images of a job and is not in the image`]);
    mkdirSync(join(root, 'job-2'));
    writeFileSync(join(root, 'job-2', 'manifest-00000007.json'), '{}');
    expect(await bringBack(captured)).toEqual([expect.stringMatching(/job-2 holds images and stays/)]);
    expect(readdirSync(images)).toEqual(['manifest-00000001.json']);
    expect(captured.entries).toBe(Object.keys(look(root)).length - 3);
  });

  test('get setuid bits only where it is asked for', async () => {
    const { root } = plant();
    chmodSync(join(root, 'a'), 0o6755);
    const captured = await capture([root]);
    unlinkSync(join(root, 'a'));
    unlinkSync(join(root, 'sub', 'same-as-a'));
    await bringBack(captured);
    expect(statSync(join(root, 'a')).mode & 0o7777).toBe(0o755);
    await bringBack(captured, { preserveSetuid: true });
    expect(statSync(join(root, 'a')).mode & 0o7777).toBe(0o6755);
  });
});

describe('a restore of files that does not come to its end', () => {
  /** Everything that was planted has changed since. */
  async function changed(): Promise<{ captured: Captured; root: string; before: ReturnType<typeof look> }> {
    const { root } = plant();
    const before = look(root);
    const captured = await capture([root]);
    appendFileSync(join(root, 'sub', 'large'), 'longer');
    const large = openSync(join(root, 'sub', 'large'), 'r+');
    writeSync(large, 'changed', 10);
    closeSync(large);
    writeFileSync(join(root, 'new'), 'new');
    unlinkSync(join(root, 'pipe'));
    return { captured, root, before };
  }

  test('has changed nothing when the image turns out to be damaged', async () => {
    const { captured, root } = await changed();
    const { directory } = captured.store;
    for (const name of readdirSync(directory).filter((one) => one.endsWith('.ffs'))) {
      const path = join(directory, name);
      const bytes = readFileSync(path);
      bytes[bytes.length - 9] = (bytes[bytes.length - 9] ?? 0) ^ 1;
      writeFileSync(path, bytes);
    }
    // A staged file that is removed changes the time of its directory, and nothing else.
    const state = (): unknown =>
      Object.entries(look(root)).map(([path, seen]) => [path, seen.kind === 'directory' ? '' : seen]);
    const before = state();
    await expect(bringBack(captured)).rejects.toMatchObject({ code: 'image' });
    expect(state()).toEqual(before);
  });

  test('leaves no half of a file behind, and the next makes all of it good', async () => {
    const { captured, root, before } = await changed();
    // As it is when the power goes while a file is changed in place.
    const large = join(root, 'sub', 'large');
    renameSync(large, join(root, 'sub', hiddenName('large')));
    writeFileSync(join(root, 'sub', stagedName('large')), 'half');
    writeFileSync(join(root, stagedName('pipe')), 'half');
    writeFileSync(join(root, stagedName('of another time')), 'half');
    const { ino } = statSync(join(root, 'sub', hiddenName('large')));
    await bringBack(captured);
    expect(statSync(large).ino).toBe(ino);
    rmSync(join(root, SET_ASIDE), { recursive: true });
    setModifiedTime(Buffer.from(root), before[root]?.modifiedNs ?? 0n);
    expect(look(root)).toEqual(before);
  });

  test('shows no half of a file either when the next one fails', async () => {
    const { captured, root } = await changed();
    const hidden = join(root, 'sub', hiddenName('large'));
    renameSync(join(root, 'sub', 'large'), hidden);
    const { directory } = captured.store;
    for (const name of readdirSync(directory).filter((one) => one.endsWith('.ffs'))) {
      const bytes = readFileSync(join(directory, name));
      bytes[bytes.length - 9] = (bytes[bytes.length - 9] ?? 0) ^ 1;
      writeFileSync(join(directory, name), bytes);
    }
    await expect(bringBack(captured)).rejects.toMatchObject({ code: 'image' });
    expect(readdirSync(join(root, 'sub'))).not.toContain('large');
    expect(statSync(hidden).isFile()).toBe(true);
  });

  test('loses nothing that lies under the name that a file has while it is changed', async () => {
    const { captured, root, before } = await changed();
    // As a restore leaves it that was killed while it made a copy of a file that runs.
    writeFileSync(join(root, 'sub', hiddenName('large')), 'half of a copy');
    expect(await bringBack(captured)).toEqual([expect.stringMatching(/^2 files and directories/)]);
    const aside = join(root, SET_ASIDE);
    const [stamp = ''] = readdirSync(aside);
    expect(readFileSync(join(aside, stamp, 'sub', hiddenName('large')), 'utf8')).toBe('half of a copy');
    rmSync(aside, { recursive: true });
    setModifiedTime(Buffer.from(root), before[root]?.modifiedNs ?? 0n);
    expect(look(root)).toEqual(before);
  });

  test('does not mind that what it would set aside is gone by then', async () => {
    const { captured, root, before } = await changed();
    const image = await captured.open();
    const warnings: string[] = [];
    const options = { image, roots: captured.roots, except: [], preserveSetuid: false };
    const staged = await stageFiles({ ...options, warn: (text) => warnings.push(text) }, () => undefined);
    unlinkSync(join(root, 'new'));
    await staged.apply();
    image.close();
    expect(warnings).toEqual([]);
    expect(look(root)).toEqual(before);
  });

  test('can be dropped, and tried again, also by those who need rights to remove what cannot be written', async () => {
    const root = join(makeDirectory(), 'data');
    const below = join(root, 'fixed', 'deep');
    mkdirSync(below, { recursive: true });
    writeFileSync(join(below, 'file'), 'x');
    symlinkSync(root, join(below, 'link'));
    writeFileSync(join(root, 'last'), 'y');
    for (const path of [below, join(root, 'fixed')]) chmodSync(path, 0o555);
    const { store, manifest } = await capture([root]);
    rmSync(join(root, 'fixed'), { recursive: true });
    chmodSync(root, 0o750);
    const drop = ['setpriv', '--bounding-set=-dac_override,-dac_read_search', '--inh-caps=-all'];
    const answer = await askScript(
      `
      import { chmodSync, readdirSync, statSync } from 'node:fs';
      import { openStore } from '${moduleUrl('store/store.js')}';
      import { openImage } from '${moduleUrl('image/reader.js')}';
      import { stageFiles } from '${moduleUrl('files/stage.js')}';
      const { directory, manifest, root } = ${JSON.stringify({ directory: store.directory, manifest, root })};
      const image = await openImage({ store: openStore(directory), manifest });
      const warnings = [];
      const warn = (text) => warnings.push(text);
      const stage = (progress) => stageFiles({ image, roots: [root], except: [], preserveSetuid: false, warn }, progress);
      const left = () => readdirSync(root).filter((name) => name !== 'last').length;
      // As one leaves it that is killed.
      await stage(() => undefined);
      const seen = [left()];
      let entries = 0;
      const failed = await stage(() => {
        if (++entries === 6) throw new Error('the reason');
      }).catch((error) => error.message);
      seen.push(left());
      const staged = await stage(() => undefined);
      chmodSync(root, 0o550);
      staged.discard();
      const mode = statSync(root).mode & 0o7777;
      console.log(JSON.stringify({ failed, seen: [...seen, left()], mode, warnings }));
      `,
      process.getuid?.() === 0 ? drop : [],
    );
    const denied: unknown = expect.stringMatching(/^cannot remove .*\.ff-new-.*: permission denied/);
    expect(answer).toEqual({ failed: 'the reason', seen: [1, 0, 1], mode: 0o550, warnings: [denied] });
  });

  test('can be dropped before anything was seen of it', async () => {
    const { captured, root } = await changed();
    const names = Object.keys(look(root));
    const image = await captured.open();
    const staged = await stageFiles(
      { image, roots: captured.roots, except: [], preserveSetuid: false, warn: () => undefined },
      () => undefined,
    );
    expect(Object.keys(look(root)).length).toBeGreaterThan(names.length);
    staged.discard();
    image.close();
    expect(Object.keys(look(root))).toEqual(names);
  });
});
