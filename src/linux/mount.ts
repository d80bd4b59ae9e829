// SPDX-License-Identifier: Apache-2.0
import { closeSync, openSync, readFileSync } from 'node:fs';
import { check, libc } from './libc.js';

const sysMount = libc.func(
  'int mount(const char *source, const char *target, const char *type, unsigned long flags, const char *data)',
) as (source: string | null, target: string, type: string | null, flags: number, data: string | null) => number;

const sysUmount = libc.func('int umount2(const char *target, int flags)') as (target: string, flags: number) => number;

const MS_RDONLY = 1;
const MS_NOSUID = 2;
const MS_NODEV = 4;
const MS_NOEXEC = 8;
const MS_REMOUNT = 32;
const MS_BIND = 4096;
const MS_MOVE = 8192;
const MS_REC = 16384;
const MNT_DETACH = 2;
const O_PATH = 0o10000000;

/** Mount a devpts of this mount namespace's own at `target`: its indexes start at 0 whatever the host has open. */
export function mountPrivateDevpts(target: string): void {
  check(
    sysMount('devpts', target, 'devpts', MS_NOSUID | MS_NOEXEC, 'newinstance,ptmxmode=0666,mode=0620'),
    'mount devpts',
    target,
  );
}

export function bindMount(source: string, target: string): void {
  check(sysMount(source, target, null, MS_BIND, null), 'mount --bind', `${source} on ${target}`);
}

/** Let nothing be written, no device be opened and no setuid bit count through this mount, whatever it was before. */
export function protectMount(target: string): void {
  const flags = MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV;
  check(sysMount(null, target, null, flags, null), 'mount -o remount,bind,ro', target);
}

/** With everything that is mounted below `source`: what a user namespace found mounted cannot be uncovered singly. */
export function bindTree(source: string, target: string): void {
  check(sysMount(source, target, null, MS_BIND | MS_REC, null), 'mount --rbind', `${source} on ${target}`);
}

export function moveMount(source: string, target: string): void {
  check(sysMount(source, target, null, MS_MOVE, null), 'mount --move', `${source} to ${target}`);
}

/** Files in memory, in a directory of which `mode` are the permission bits. */
export function mountTmpfs(target: string, mode: number): void {
  check(
    sysMount('fastfreeze', target, 'tmpfs', MS_NOSUID | MS_NODEV, `mode=${mode.toString(8)}`),
    'mount tmpfs',
    target,
  );
}

/** Take a mount out of the tree; what is bound from it elsewhere stays. */
export function detachMount(target: string): void {
  check(sysUmount(target, MNT_DETACH), 'umount', target);
}

/** Take every mount below a directory out of the tree. */
export function detachBelow(directory: string): void {
  for (;;) {
    const below = readMounts().filter(({ path }) => path.startsWith(`${directory}/`));
    // The outermost first: the others go with it, and some go in no other way.
    const [first] = below.sort((a, b) => a.path.length - b.path.length);
    if (first === undefined) return;
    detachMount(first.path);
  }
}

/** The mounts of our mount namespace that we can see. */
function readMounts(): { readonly id: string; readonly path: string; readonly options: string }[] {
  const lines = readFileSync('/proc/self/mountinfo', 'utf8').split('\n');
  return lines.map((line) => {
    const [id = '', , , , path = '', options = ''] = line.split(' ');
    // Spaces and the like are written as three octal digits.
    const unescaped = path.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(parseInt(digits, 8)));
    return { id, path: unescaped, options };
  });
}

/** Whether programs and libraries can be mapped from where `path` is. */
export function allowsExecution(path: string): boolean {
  const fd = openSync(path, O_PATH);
  try {
    const id = /^mnt_id:\s*(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))?.[1];
    const options = readMounts().find((mount) => mount.id === id)?.options ?? '';
    return !options.split(',').includes('noexec');
  } finally {
    closeSync(fd);
  }
}
