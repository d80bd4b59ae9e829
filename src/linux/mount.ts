// SPDX-License-Identifier: Apache-2.0
import { check, libc } from './libc.js';

const sysMount = libc.func(
  'int mount(const char *source, const char *target, const char *type, unsigned long flags, const char *data)',
) as (source: string | null, target: string, type: string | null, flags: number, data: string | null) => number;

const MS_BIND = 4096;
const MS_NOSUID = 2;
const MS_NOEXEC = 8;

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
