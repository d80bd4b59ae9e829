// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError, asFastFreezeError } from '../base/errors.js';
import type { CreateOptions, Store } from '../store/store.js';
import { MAX_MANIFEST_BYTES, type Manifest, type ParseOptions, parseManifest, serializeManifest } from './manifest.js';
import { HINT_NAME, manifestName, parseManifestName } from './names.js';

export interface CommitOptions extends CreateOptions {
  /** Told when the commit stands but its hint could not be written. */
  readonly warn?: (message: string) => void;
  /** False when a newer generation is there already: the hint is the newest's. */
  readonly hint?: boolean;
}

/**
 * Make an image the job's newest: the one step that counts. `exists` means that somebody else committed this
 * generation first; nothing has changed then.
 */
export async function commitManifest(
  store: Store,
  manifest: Manifest,
  options: CommitOptions = {},
): Promise<'created' | 'exists'> {
  const bytes = serializeManifest(manifest);
  if (bytes.length > MAX_MANIFEST_BYTES) {
    const reason = `with ${bytes.length} bytes no reader would take it`;
    throw new FastFreezeError({ code: 'internal', op: 'write the manifest', reason });
  }
  const outcome = await store.createIfAbsent(manifestName(manifest.generation), bytes, options);
  if (outcome === 'exists' || options.hint === false || store.writeOnce !== undefined) return outcome;
  try {
    await store.put(HINT_NAME, bytes);
  } catch (error) {
    // The image is committed whether or not people find the copy; an old copy misleads nothing of ours.
    options.warn?.(asFastFreezeError(error, 'write', HINT_NAME).message);
  }
  return outcome;
}

/** Every committed generation, the oldest first. */
export async function listGenerations(store: Store): Promise<number[]> {
  const objects = await store.list('manifest-');
  const generations = objects.map((object) => parseManifestName(object.name));
  return generations.filter((generation) => generation !== undefined).sort((one, other) => one - other);
}

/** The generations that a user means, the oldest first; at least one. None there: `not-found`. */
export async function chooseGenerations(store: Store, which: number | 'newest' | 'all'): Promise<number[]> {
  const generations = await listGenerations(store);
  const newest = generations.at(-1);
  if (newest === undefined) throw noImage(store);
  if (which === 'all') return generations;
  if (which === 'newest') return [newest];
  if (generations.includes(which)) return [which];
  throw new FastFreezeError({
    code: 'not-found',
    op: 'find an image in',
    subject: store.url,
    reason: `there is no generation ${which}`,
    hint: `there ${generations.length === 1 ? 'is' : 'are'} ${generations.join(', ')}`,
  });
}

/**
 * A committed manifest. None at all, or not this one: `not-found`. One that is damaged is an `image` error and never
 * a reason to take an older one: the job would silently lose work.
 */
export async function readManifest(
  store: Store,
  which: number | 'newest',
  options: Omit<ParseOptions, 'subject'> = {},
): Promise<Manifest> {
  const generation = which === 'newest' ? (await listGenerations(store)).at(-1) : which;
  if (generation === undefined) throw noImage(store);
  const subject = manifestName(generation);
  const manifest = parseManifest(await readObject(store, subject), { ...options, subject });
  if (manifest.generation !== generation) {
    const reason = `it says that it is generation ${manifest.generation}: it was renamed or copied`;
    throw new FastFreezeError({ code: 'image', op: 'read the manifest', subject, reason });
  }
  return manifest;
}

function noImage(store: Store): FastFreezeError {
  return new FastFreezeError({
    code: 'not-found',
    op: 'find an image in',
    subject: store.url,
    reason: 'there is none',
    hint: 'check the URL; fastfreeze list URL-PREFIX shows what there is',
  });
}

async function readObject(store: Store, name: string): Promise<Buffer> {
  const reader = await store.openReader(name);
  try {
    if (reader.sizeBytes > MAX_MANIFEST_BYTES) {
      const reason = `with ${reader.sizeBytes} bytes it is too large to be one`;
      throw new FastFreezeError({ code: 'image', op: 'read the manifest', subject: name, reason });
    }
    const bytes = Buffer.alloc(reader.sizeBytes);
    await reader.read(0, bytes);
    return bytes;
  } finally {
    reader.close();
  }
}
