// SPDX-License-Identifier: Apache-2.0
import { openSync } from 'node:fs';
import { closeFd, ioctlBuffer } from './fds.js';
import { SystemError, check, libc } from './libc.js';

const cfmakeraw = libc.func('void cfmakeraw(void *termios)') as (termios: Uint8Array) => void;
const tcgetattr = libc.func('int tcgetattr(int fd, void *termios)') as (fd: number, termios: Uint8Array) => number;
const tcsetattr = libc.func('int tcsetattr(int fd, int when, const void *termios)') as (
  fd: number,
  when: number,
  termios: Uint8Array,
) => number;

const dup2 = libc.func('int dup2(int from, int to)') as (from: number, to: number) => number;

const TCSANOW = 0;
const TIOCSCTTY = 0x540e;
const TIOCGWINSZ = 0x5413;
const TIOCSWINSZ = 0x5414;
const TIOCSPTLCK = 0x40045431;
const TIOCGPTN = 0x80045430;
const O_RDWR = 2;
const O_NOCTTY = 0o400;
/** Places in glibc's struct termios: four 32-bit flag words and c_line before c_cc. */
const LFLAG_OFFSET = 12;
const VINTR_OFFSET = 17;
const VQUIT_OFFSET = VINTR_OFFSET + 1;
const VSUSP_OFFSET = VINTR_OFFSET + 10;
const ISIG = 1;
/** _POSIX_VDISABLE: no key does it. */
const NO_KEY = 0;
const TERMIOS_BYTES = 60;

/** The settings of a terminal, opaque: keep them to put them back. */
export function readTerminalSettings(fd: number): Buffer {
  const termios = Buffer.alloc(TERMIOS_BYTES);
  check(tcgetattr(fd, termios), 'tcgetattr');
  return termios;
}

export function writeTerminalSettings(fd: number, settings: Uint8Array): void {
  check(tcsetattr(fd, TCSANOW, settings), 'tcsetattr');
}

/**
 * Put /dev/null in the place of standard streams whose terminal has hung up. Node puts a terminal's settings back at its end,
 * and aborts when the terminal does not take them: our exit code would be lost.
 */
export function letGoOfDeadTerminals(): void {
  for (const fd of [0, 1, 2]) {
    if (!hasHungUp(fd)) continue;
    const none = openSync('/dev/null', O_RDWR);
    check(dup2(none, fd), 'dup2');
    closeFd(none);
  }
}

function hasHungUp(fd: number): boolean {
  try {
    readTerminalSettings(fd);
    return false;
  } catch (error) {
    return error instanceof SystemError && error.code === 'EIO';
  }
}

/** The same settings made raw: every byte passes through, none raises a signal. */
export function rawSettings(settings: Uint8Array): Buffer {
  const raw = Buffer.from(settings);
  cfmakeraw(raw);
  return raw;
}

/** Raw, but for the key that raises SIGINT, where these settings have one: all other bytes pass through. */
export function rawSettingsWithInterrupt(settings: Uint8Array): Buffer {
  const raw = rawSettings(settings);
  const isig = Buffer.from(settings).readUInt32LE(LFLAG_OFFSET) & ISIG;
  raw.writeUInt32LE(raw.readUInt32LE(LFLAG_OFFSET) | isig, LFLAG_OFFSET);
  raw[VQUIT_OFFSET] = NO_KEY;
  raw[VSUSP_OFFSET] = NO_KEY;
  return raw;
}

/** The byte that raises SIGINT under these settings (0 when none does). */
export function interruptByte(settings: Uint8Array): number {
  return settings[VINTR_OFFSET] ?? 0;
}

/** rows, columns and pixels of a terminal, opaque. */
export function readWindowSize(fd: number): Buffer {
  const size = Buffer.alloc(8);
  ioctlBuffer(fd, TIOCGWINSZ, size, 'ioctl TIOCGWINSZ');
  return size;
}

export function writeWindowSize(fd: number, size: Uint8Array): void {
  ioctlBuffer(fd, TIOCSWINSZ, size, 'ioctl TIOCSWINSZ');
}

/** Make `fd` the controlling terminal of this process, which must lead a session. */
export function takeControllingTerminal(fd: number): void {
  ioctlBuffer(fd, TIOCSCTTY, Buffer.alloc(8), 'ioctl TIOCSCTTY');
}

export interface PseudoTerminal {
  readonly masterFd: number;
  /** Index in this mount namespace's /dev/pts. */
  readonly index: number;
  readonly path: string;
}

/** A new pseudo-terminal of the devpts mounted at /dev/pts. Open `path` for the other end. */
export function openPseudoTerminal(): PseudoTerminal {
  const masterFd = openSync('/dev/pts/ptmx', O_RDWR | O_NOCTTY);
  const number = Buffer.alloc(4);
  ioctlBuffer(masterFd, TIOCSPTLCK, Buffer.alloc(4), 'ioctl TIOCSPTLCK');
  ioctlBuffer(masterFd, TIOCGPTN, number, 'ioctl TIOCGPTN');
  const index = number.readUInt32LE(0);
  return { masterFd, index, path: `/dev/pts/${index}` };
}

const tcgetpgrp = libc.func('int tcgetpgrp(int fd)') as (fd: number) => number;
const getpgrp = libc.func('int getpgrp()') as () => number;

/** Whether this process may use the terminal: it is ours, and we are in its foreground. */
export function isForegroundTerminal(fd: number): boolean {
  return tcgetpgrp(fd) === getpgrp();
}

/** Whether this is our terminal, but another's foreground: whoever reads it here is stopped by SIGTTIN. */
export function isBackgroundTerminal(fd: number): boolean {
  const group = tcgetpgrp(fd);
  return group >= 0 && group !== getpgrp();
}
