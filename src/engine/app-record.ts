// SPDX-License-Identifier: Apache-2.0
import { isAbsolute, normalize } from 'node:path';
import { FastFreezeError } from '../base/errors.js';
import type { AppendingFile } from '../container/appending.js';
import { BASELINE_NAMES, type CpuRecord } from '../container/cpu-baseline.js';
import type { Identity } from '../container/own-ids.js';
import type { StreamRecord } from '../container/stdio/record.js';
import type { ReadFile } from '../container/read-files.js';
import { formatRanges, parseRanges } from '../container/pids.js';
import { wrongRoot } from '../files/roots.js';
import type { Clocks } from '../linux/clocks.js';
import type { Preserve } from './config.js';
import { type Pace, parsePace } from './pace.js';

/** What was to be preserved, and what of it is in the image. */
export interface PreservedFiles extends Omit<Preserve, 'mapped'> {
  /** Where the files really are; nothing elsewhere is touched by a restore. */
  readonly roots: readonly string[];
  /** What below them was left out by name, and is not in the image. Images of earlier versions do not say. */
  readonly except?: readonly string[];
  readonly entries: number;
  readonly dataBytes: number;
}

/** What of the files that it only reads is in the image. */
export interface CarriedFiles {
  readonly files: number;
  readonly dataBytes: number;
}

/** What the manifest says of the application: all that a restore needs to know before CRIU runs. */
export interface AppRecord {
  readonly command: readonly string[];
  readonly pid: number;
  /** Every PID, TID, process group and session of the tree. */
  readonly taken: readonly number[];
  readonly processes: number;
  readonly residentBytes: number;
  /** Clocks at the freeze. */
  readonly clocks: Clocks;
  /** Whether CRIU had the machine's capabilities; an image of a user namespace has other identities in it. */
  readonly privileged: boolean;
  /** A normal user's own ids, where the application has them in its user namespace. Without: it is uid 0 there. */
  readonly identity?: Identity;
  readonly streams: readonly StreamRecord[];
  /** CPU affinity of threads that had one of their own, as lists of CPUs: CRIU does not bring it back. */
  readonly affinity: readonly { readonly tid: number; readonly cpus: string }[];
  /** It has an IPC namespace of its own, which a restore makes again. Images of earlier versions have none. */
  readonly ownIpc?: boolean;
  /** Segments of System V shared memory that go with their last mapping: CRIU brings them back as ones that stay. */
  readonly removedSegments?: readonly number[];
  /** Files open for appending: CRIU does not notice when they have changed. */
  readonly appending: readonly AppendingFile[];
  /** Files that it reads: they must be the same at the restore. */
  readonly reads: readonly ReadFile[];
  /** What CRIU brings back changed, and `--allow-inexact` let pass. */
  readonly inexact: readonly string[];
  /** How many UNIX sockets were connected to processes outside: they come back closed. Undefined when none were. */
  readonly outsideSockets?: number;
  /** Files in the image; undefined when it has none. */
  readonly files?: PreservedFiles;
  /** Of `reads` in the image; undefined when they were not to be taken along. */
  readonly carried?: CarriedFiles;
  /** What it may use of the CPU; images of earlier versions do not say. */
  readonly cpu?: CpuRecord;
  /** How fast checkpoints of the job have been; images of earlier versions do not say. */
  readonly pace?: Pace;
}

export function appRecordToJson(record: AppRecord): unknown {
  return {
    ...record,
    taken: formatRanges(record.taken),
    clocks: { monotonicNs: String(record.clocks.monotonicNs), boottimeNs: String(record.clocks.boottimeNs) },
  };
}

/** The record out of a manifest. It comes from storage, so every field is looked at. */
export function parseAppRecord(json: unknown): AppRecord {
  const record = object(json, 'app');
  const clocks = object(record['clocks'], 'app.clocks');
  const taken = parseRanges(text(record['taken'], 'app.taken'));
  if (taken === undefined) throw damaged('app.taken');
  return {
    command: list(record['command'], 'app.command').map((word, i) => text(word, `app.command[${i}]`)),
    pid: count(record['pid'], 'app.pid'),
    taken,
    processes: count(record['processes'], 'app.processes'),
    residentBytes: count(record['residentBytes'], 'app.residentBytes'),
    clocks: {
      monotonicNs: nanoseconds(clocks['monotonicNs'], 'app.clocks.monotonicNs'),
      boottimeNs: nanoseconds(clocks['boottimeNs'], 'app.clocks.boottimeNs'),
    },
    privileged: flag(record['privileged'], 'app.privileged'),
    ...(record['identity'] === undefined ? {} : { identity: parseIdentity(record['identity']) }),
    streams: list(record['streams'], 'app.streams').map((stream, i) => parseStream(stream, `app.streams[${i}]`)),
    affinity: list(record['affinity'], 'app.affinity').map((one, i) => {
      const entry = object(one, `app.affinity[${i}]`);
      return { tid: count(entry['tid'], 'tid'), cpus: text(entry['cpus'], 'cpus') };
    }),
    ...(record['ownIpc'] === true ? { ownIpc: true } : {}),
    ...(record['removedSegments'] === undefined
      ? {}
      : {
          removedSegments: list(record['removedSegments'], 'app.removedSegments').map((id) =>
            count(id, 'app.removedSegments'),
          ),
        }),
    appending: list(record['appending'], 'app.appending').map((one, i) => {
      const entry = object(one, `app.appending[${i}]`);
      return { path: text(entry['path'], 'path'), lengthBytes: count(entry['lengthBytes'], 'lengthBytes') };
    }),
    reads: list(record['reads'], 'app.reads').map((one, i) => parseReadFile(one, `app.reads[${i}]`)),
    inexact: list(record['inexact'], 'app.inexact').map((one) => text(one, 'app.inexact')),
    ...(record['outsideSockets'] === undefined
      ? {}
      : { outsideSockets: count(record['outsideSockets'], 'app.outsideSockets') }),
    ...optionalPace(record['pace']),
    ...(record['cpu'] === undefined ? {} : { cpu: parseCpu(record['cpu']) }),
    ...(record['files'] === undefined ? {} : { files: parseFiles(record['files']) }),
    ...(record['carried'] === undefined ? {} : { carried: parseCarried(record['carried']) }),
  };
}

function optionalPace(json: unknown): { pace?: Pace } {
  const pace = parsePace(json);
  return pace === undefined ? {} : { pace };
}

function parseReadFile(json: unknown, where: string): ReadFile {
  const file = object(json, where);
  const sha256 = text(file['sha256'], `${where}.sha256`);
  if (!/^[0-9a-f]{64}$/.test(sha256)) throw damaged(`${where}.sha256`);
  return {
    path: text(file['path'], `${where}.path`),
    sizeBytes: count(file['sizeBytes'], `${where}.sizeBytes`),
    mode: count(file['mode'], `${where}.mode`),
    sha256,
    sampled: flag(file['sampled'], `${where}.sampled`),
  };
}

function parseFiles(json: unknown): PreservedFiles {
  const files = object(json, 'app.files');
  const paths = (name: string): string[] =>
    list(files[name], `app.files.${name}`).map((one) => {
      const path = text(one, `app.files.${name}`);
      // What is to be replaced on this machine is said by an image.
      if (!isAbsolute(path) || normalize(path) !== path || wrongRoot(path) !== undefined)
        throw damaged(`app.files.${name}`);
      return path;
    });
  return {
    paths: paths('paths'),
    openFiles: flag(files['openFiles'], 'app.files.openFiles'),
    roots: paths('roots'),
    ...(files['except'] === undefined
      ? {}
      : { except: list(files['except'], 'app.files.except').map((one) => text(one, 'app.files.except')) }),
    entries: count(files['entries'], 'app.files.entries'),
    dataBytes: count(files['dataBytes'], 'app.files.dataBytes'),
  };
}

function parseCarried(json: unknown): CarriedFiles {
  const carried = object(json, 'app.carried');
  return {
    files: count(carried['files'], 'app.carried.files'),
    dataBytes: count(carried['dataBytes'], 'app.carried.dataBytes'),
  };
}

function parseCpu(json: unknown): CpuRecord {
  const cpu = object(json, 'app.cpu');
  const names = (field: string): string[] =>
    list(cpu[field], `app.cpu.${field}`).map((one) => {
      const name = text(one, `app.cpu.${field}`);
      if (!/^[a-z0-9_]{1,40}$/.test(name)) throw damaged(`app.cpu.${field}`);
      return name;
    });
  const baseline = text(cpu['baseline'], 'app.cpu.baseline');
  if (!BASELINE_NAMES.includes(baseline)) throw damaged('app.cpu.baseline');
  return { baseline, masked: names('masked'), features: names('features') };
}

function parseIdentity(json: unknown): Identity {
  const identity = object(json, 'app.identity');
  return { uid: count(identity['uid'], 'app.identity.uid'), gid: count(identity['gid'], 'app.identity.gid') };
}

function parseStream(json: unknown, where: string): StreamRecord {
  const stream = object(json, where);
  const kind = text(stream['kind'], `${where}.kind`);
  const role = text(stream['role'], `${where}.role`);
  const resource = text(stream['resource'], `${where}.resource`);
  if (kind !== 'pipe' && kind !== 'terminal' && kind !== 'file') throw damaged(`${where}.kind`);
  if (role !== 'stdin' && role !== 'stdout' && role !== 'stderr' && role !== 'terminal') throw damaged(`${where}.role`);
  // The text becomes an argument of CRIU's.
  if (!/^(pipe:\[\d+\]|tty\[[0-9a-f]+:[0-9a-f]+\]|)$/.test(resource)) throw damaged(`${where}.resource`);
  const file = stream['file'] === undefined ? undefined : object(stream['file'], `${where}.file`);
  return {
    kind,
    role,
    resource,
    fds: list(stream['fds'], `${where}.fds`).map((fd) => count(fd, `${where}.fds`)),
    ended: flag(stream['ended'], `${where}.ended`),
    pendingBytes: count(stream['pendingBytes'], `${where}.pendingBytes`),
    ...(file === undefined
      ? {}
      : { file: { path: text(file['path'], 'path'), lengthBytes: count(file['lengthBytes'], 'lengthBytes') } }),
  };
}

function object(value: unknown, where: string): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw damaged(where);
  return value as Record<string, unknown>;
}

function list(value: unknown, where: string): unknown[] {
  if (!Array.isArray(value)) throw damaged(where);
  return value;
}

function text(value: unknown, where: string): string {
  if (typeof value !== 'string') throw damaged(where);
  return value;
}

function count(value: unknown, where: string): number {
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0) throw damaged(where);
  return value;
}

function flag(value: unknown, where: string): boolean {
  if (typeof value !== 'boolean') throw damaged(where);
  return value;
}

function nanoseconds(value: unknown, where: string): bigint {
  const digits = text(value, where);
  if (!/^\d{1,19}$/.test(digits)) throw damaged(where);
  return BigInt(digits);
}

function damaged(where: string): FastFreezeError {
  return new FastFreezeError({
    code: 'image',
    op: 'read the manifest',
    subject: where,
    reason: 'the field is missing or of the wrong form',
    hint: 'start over with --no-restore, or restore an earlier generation',
  });
}
