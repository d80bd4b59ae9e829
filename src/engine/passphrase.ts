// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError } from '../base/errors.js';
import { listGenerations, readManifest } from '../image/generations.js';
import { ImageKeys, type KeyMaterial, keyMaterialFor, missingPassphrase, newKeyMaterial } from '../image/keys.js';
import type { Manifest } from '../image/manifest.js';
import { manifestName } from '../image/names.js';
import type { Store } from '../store/store.js';

/**
 * The keys of an image that is there: undefined where it is not encrypted. Throws `key` where the passphrase is missing or
 * wrong, `image` where one is given and the image was exchanged for one that is not encrypted, or was changed.
 */
export async function materialOf(manifest: Manifest, passphrase: string | undefined): Promise<KeyMaterial | undefined> {
  const subject = manifestName(manifest.generation);
  const encryption = manifest.image?.encryption;
  if (encryption === undefined) {
    refuseUnencrypted(manifest, passphrase);
    return undefined;
  }
  if (passphrase === undefined) throw missingPassphrase(subject);
  return await keyMaterialFor(passphrase, encryption, subject);
}

/** For the commands that look at images: derived once for all generations of a job. */
export function keysWith(passphrase: string | undefined): (manifest: Manifest) => Promise<ImageKeys | undefined> {
  const known = new Map<string, Promise<KeyMaterial | undefined>>();
  return async (manifest) => {
    const { encryption } = manifest.image ?? {};
    const id = JSON.stringify([encryption?.salt, encryption?.check, encryption?.n, encryption?.r, encryption?.p]);
    const material = known.get(id) ?? materialOf(manifest, passphrase);
    known.set(id, material);
    return revive(await material);
  };
}

export function revive(material: KeyMaterial | undefined): ImageKeys | undefined {
  return material === undefined ? undefined : new ImageKeys(material);
}

/** What a job that starts from scratch encrypts with. */
export async function freshMaterial(passphrase: string | undefined): Promise<KeyMaterial | undefined> {
  return passphrase === undefined ? undefined : await newKeyMaterial(passphrase);
}

/** A passphrase was given for an image that is not encrypted: whoever can write there could have put it in place. */
function refuseUnencrypted(manifest: Manifest, passphrase: string | undefined): void {
  if (passphrase === undefined || manifest.image === undefined || manifest.image.encryption !== undefined) return;
  throw new FastFreezeError({
    code: 'image',
    op: 'read',
    subject: manifestName(manifest.generation),
    reason: 'a passphrase is given, but the image is not encrypted: somebody may have exchanged it',
    hint: 'only if you know that it never was encrypted: run it without a passphrase, then fastfreeze checkpoint --passphrase-file FILE',
  });
}

/** Whether the newest image that can be read is encrypted. Never throws: it is asked where images are not to be used. */
export async function wasEncrypted(store: Store): Promise<boolean> {
  try {
    for (const generation of (await listGenerations(store)).reverse()) {
      const { image } = await readManifest(store, generation);
      if (image !== undefined) return image.encryption !== undefined;
    }
  } catch {
    return false;
  }
  return false;
}
