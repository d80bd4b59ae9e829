// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError } from '../base/errors.js';
import type { CpuRecord } from '../container/cpu-baseline.js';
import type { ImageCpu } from '../criu/images/cpu.js';
import { type ImageProcess, readProcesses } from '../criu/images/processes.js';
import { readManifest } from '../image/generations.js';
import { type LeaseHolder, readLease } from '../image/lease-holder.js';
import type { FinishedRecord, Manifest, ObjectRecord, WriterRecord } from '../image/manifest.js';
import { type ImageReader, openImage } from '../image/reader.js';
import type { Store } from '../store/store.js';
import { type PreservedFiles, parseAppRecord } from './app-record.js';
import { keysWith } from './passphrase.js';

export interface Inspected {
  readonly imageUrl: string;
  readonly generation: number;
  readonly state: Manifest['state'];
  readonly createdAt: string;
  readonly writer: WriterRecord;
  /** How the job ended, with `finished`; else null. */
  readonly finished: FinishedRecord | null;
  /** Who runs the job, or died doing so: who has its lease. */
  readonly holder: LeaseHolder | null;
  readonly image: InspectedImage | null;
  readonly app: InspectedApp | null;
  readonly processes: readonly ImageProcess[];
  /** Pages of anonymous shared memory in the image, each once. */
  readonly sharedSavedBytes: number;
  readonly cpu: ImageCpu | null;
  /** Kinds of registers that were in use: a machine without them cannot restore the image. */
  readonly registers: readonly string[];
  /** What could not be shown, and why. */
  readonly notes: readonly string[];
}

export interface InspectedImage {
  readonly prefix: string;
  readonly codec: string;
  readonly cipher: string;
  readonly baseGeneration: number | null;
  readonly rawBytes: number;
  /** Bytes of chunks that a restore reads, those of earlier images too. */
  readonly storedBytes: number;
  /** Raw by stored; null for an image without bytes. */
  readonly compressionRatio: number | null;
  readonly files: number;
  readonly chunks: number;
  /** Bytes of memory pages among the raw ones. */
  readonly pageBytes: number;
  readonly shards: readonly ObjectRecord[];
  readonly index: ObjectRecord;
}

export interface InspectedApp {
  readonly command: readonly string[];
  readonly pid: number;
  readonly residentBytes: number;
  readonly privileged: boolean;
  readonly identity: { readonly uid: number; readonly gid: number } | null;
  readonly streams: readonly {
    readonly role: string;
    readonly kind: string;
    readonly path: string | null;
    readonly pendingBytes: number;
    readonly ended: boolean;
  }[];
  readonly appending: readonly { readonly path: string; readonly lengthBytes: number }[];
  /** Files that must be the same at a restore. */
  readonly reads: readonly { readonly path: string; readonly sizeBytes: number; readonly sampled: boolean }[];
  /** What --allow-inexact let pass. */
  readonly inexact: readonly string[];
  /** Files of the application's own in the image; null when it has none. */
  readonly preserved: {
    readonly roots: readonly string[];
    readonly openFiles: boolean;
    readonly entries: number;
    readonly dataBytes: number;
  } | null;
  /** Of `reads` in the image; null when they were not taken along. */
  readonly carried: { readonly files: number; readonly dataBytes: number } | null;
  /** What it may use of the CPU; null where an earlier version made the image. */
  readonly cpu: CpuRecord | null;
}

/** Larger than any of CRIU's small files; keeps a strange image from filling memory. */
const MAX_SMALL_BYTES = 64 << 20;

/**
 * What an image is, out of its manifest, index and CRIU's small files. Of memory only the pages are read that hold the
 * command lines.
 */
export async function inspect(store: Store, which: number | 'newest', passphrase?: string): Promise<Inspected> {
  const manifest = await readManifest(store, which);
  const { generation, state, createdAt, writer } = manifest;
  const common = {
    imageUrl: store.url,
    generation,
    state,
    createdAt,
    writer,
    finished: manifest.finished ?? null,
    holder: (await readLease(store)).holder,
  };
  if (manifest.image === undefined) {
    return {
      ...common,
      image: null,
      app: null,
      processes: [],
      sharedSavedBytes: 0,
      cpu: null,
      registers: [],
      notes: [],
    };
  }
  const image = await openImage({ store, manifest, keys: await keysWith(passphrase)(manifest) });
  try {
    const found = await readProcesses(
      (name) => readSmall(image, name),
      image.files.keys(),
      (name, offset, length) => image.readAt(name, offset, length),
    );
    const app = readApp(manifest);
    const notes = typeof app === 'string' ? [app, ...found.notes] : found.notes;
    return {
      ...common,
      image: describeImage(manifest.image, image),
      app: typeof app === 'string' ? null : app,
      ...found,
      notes,
    };
  } finally {
    image.close();
  }
}

async function readSmall(image: ImageReader, name: string): Promise<Buffer | undefined> {
  return image.files.has(name) ? await image.readAll(name, MAX_SMALL_BYTES) : undefined;
}

function describeImage(sealed: NonNullable<Manifest['image']>, image: ImageReader): InspectedImage {
  const { chunks, files } = image.index;
  let storedBytes = 0;
  for (let chunk = 0; chunk < chunks.length; chunk++) storedBytes += chunks.storedBytes(chunk);
  const pages = [...files].filter(([name]) => name.startsWith('pages-'));
  const { prefix, codec, cipher, baseGeneration, rawBytes, shards, index } = sealed;
  return {
    prefix,
    codec,
    cipher,
    baseGeneration,
    rawBytes,
    storedBytes,
    compressionRatio: storedBytes === 0 ? null : Math.round((100 * rawBytes) / storedBytes) / 100,
    files: sealed.files,
    chunks: sealed.chunks,
    pageBytes: pages.reduce((sum, [, file]) => sum + file.sizeBytes, 0),
    shards,
    index: { name: index.name, sizeBytes: index.sizeBytes },
  };
}

function preserved({ roots, openFiles, entries, dataBytes }: PreservedFiles): InspectedApp['preserved'] {
  return { roots, openFiles, entries, dataBytes };
}

/** The engine's record, or why it cannot be shown: the rest of the image can be all the same. */
function readApp(manifest: Manifest): InspectedApp | string {
  try {
    const {
      command,
      pid,
      residentBytes,
      privileged,
      identity,
      streams,
      appending,
      files,
      reads,
      inexact,
      cpu,
      carried,
    } = parseAppRecord(manifest.app);
    return {
      command,
      pid,
      residentBytes,
      privileged,
      identity: identity ?? null,
      streams: streams.map(({ role, kind, file, pendingBytes, ended }) => ({
        role,
        kind,
        path: file?.path ?? null,
        pendingBytes,
        ended,
      })),
      appending: appending.map(({ path, lengthBytes }) => ({ path, lengthBytes })),
      reads: reads.map(({ path, sizeBytes, sampled }) => ({ path, sizeBytes, sampled })),
      inexact,
      preserved: files === undefined ? null : preserved(files),
      carried: carried ?? null,
      cpu: cpu ?? null,
    };
  } catch (error) {
    if (!(error instanceof FastFreezeError) || error.code !== 'image') throw error;
    return `${error.subject ?? 'app'}: ${error.reason}`;
  }
}
