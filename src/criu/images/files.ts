// SPDX-License-Identifier: Apache-2.0
import { inetAddress } from './addresses.js';
import type { Message } from './protobuf.js';

/** What a descriptor refers to. Fields that a kind does not have are absent. */
export interface ImageFile {
  readonly kind: string;
  /** Of a regular file or directory, and of a UNIX socket that has a name (`@` for an abstract one). */
  readonly path?: string;
  readonly access?: 'read' | 'write' | 'read-write';
  readonly append?: boolean;
  readonly positionBytes?: number;
  readonly sizeBytes?: number;
  /** Of an Internet socket: `127.0.0.1:80`, `[::1]:80`. */
  readonly local?: string;
  readonly remote?: string;
  /** Of a TCP socket: `listen`, `established`, ... */
  readonly state?: string;
}

export interface Descriptor extends ImageFile {
  readonly fd: number;
}

/** By CRIU's numbers of kinds of files (fd_types in its fdinfo.proto). */
const KINDS: Readonly<Record<number, string>> = {
  1: 'file',
  2: 'pipe',
  3: 'fifo',
  5: 'unix',
  6: 'eventfd',
  7: 'epoll',
  8: 'inotify',
  9: 'signalfd',
  10: 'packet',
  11: 'terminal',
  12: 'fanotify',
  13: 'netlink',
  14: 'namespace',
  15: 'tun',
  16: 'external',
  17: 'timerfd',
  18: 'memfd',
};
const INET = 4;

/** The kernel's numbers of TCP states. */
const TCP_STATES = [
  '',
  'established',
  'syn-sent',
  'syn-received',
  'fin-wait-1',
  'fin-wait-2',
  'time-wait',
  'closed',
  'close-wait',
  'last-ack',
  'listen',
  'closing',
];

/** The open files of `files.img`, by the number that descriptors and mappings use for them. */
export function readFiles(entries: readonly Message[]): Map<number, ImageFile> {
  return new Map(entries.map((entry) => [entry.count(2) ?? 0, readFile(entry)]));
}

/** The descriptors of one `fdinfo-N.img`. */
export function readDescriptors(entries: readonly Message[], files: ReadonlyMap<number, ImageFile>): Descriptor[] {
  const descriptors = entries.map((entry) => {
    const kind = kindName(entry.count(3) ?? 0);
    return { fd: entry.count(4) ?? 0, ...(files.get(entry.count(1) ?? 0) ?? { kind }) };
  });
  return descriptors.sort((one, other) => one.fd - other.fd);
}

function readFile(entry: Message): ImageFile {
  const type = entry.count(1) ?? 0;
  const regular = entry.message(3);
  if (regular !== undefined) return readRegular(regular);
  const inet = type === INET ? entry.message(4) : undefined;
  if (inet !== undefined) return readInet(inet);
  const unix = entry.message(16);
  const path = unix === undefined ? '' : unixName(unix.bytes(11));
  return { kind: kindName(type), ...(path === '' ? {} : { path }) };
}

function readRegular(regular: Message): ImageFile {
  const flags = regular.count(2) ?? 0;
  const mode = regular.count(10) ?? 0;
  const sizeBytes = regular.count(8);
  const isDirectory = (mode & 0o170000) === 0o040000;
  const isDevice = (mode & 0o170000) === 0o020000 || (mode & 0o170000) === 0o060000;
  return {
    kind: isDirectory ? 'directory' : isDevice ? 'device' : 'file',
    path: regular.text(6) ?? '',
    access: (flags & 3) === 0 ? 'read' : (flags & 3) === 1 ? 'write' : 'read-write',
    append: (flags & 0o2000) !== 0,
    ...(isDirectory || isDevice ? {} : { positionBytes: Number(regular.big(3) ?? 0n) }),
    ...(sizeBytes === undefined || isDirectory || isDevice ? {} : { sizeBytes }),
  };
}

function readInet(inet: Message): ImageFile {
  const family = inet.count(3) ?? 0;
  const kind = { 6: 'tcp', 17: 'udp', 136: 'udplite' }[inet.count(5) ?? 0] ?? 'raw';
  const remotePort = inet.count(8) ?? 0;
  const state = TCP_STATES[inet.count(6) ?? 0] ?? '';
  return {
    kind: family === 10 ? `${kind}6` : kind,
    local: inetAddress(family, inet.counts(11), inet.count(7) ?? 0),
    ...(remotePort === 0 ? {} : { remote: inetAddress(family, inet.counts(12), remotePort) }),
    ...(kind === 'tcp' && state !== '' ? { state } : {}),
  };
}

function unixName(bytes: Uint8Array | undefined): string {
  const text = Buffer.from(bytes ?? []).toString('utf8');
  return text.startsWith('\0') ? `@${text.slice(1)}` : text.replace(/\0+$/, '');
}

function kindName(type: number): string {
  return type === INET ? 'inet' : (KINDS[type] ?? `type ${type}`);
}
