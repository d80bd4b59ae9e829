// SPDX-License-Identifier: Apache-2.0
import { createHash } from 'node:crypto';
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { FastFreezeError } from '../../../src/base/errors.js';
import { type ManifestFields, buildManifest, parseManifest, serializeManifest } from '../../../src/image/manifest.js';

const fields: ManifestFields = {
  generation: 3,
  state: 'checkpoint',
  createdAt: '2026-01-02T03:04:05.678Z',
  writer: { version: '0.1.0', host: 'hôst', kernel: '6.1', criu: '4.2.1' },
  image: {
    prefix: 'p',
    codec: 'lz4',
    cipher: 'none',
    baseGeneration: 2,
    shards: [
      { name: 'p-1.ffs', sizeBytes: 10 },
      { name: 'o-7.ffs', sizeBytes: 20 },
    ],
    index: { name: 'p.ffi', sizeBytes: 30, sha256: 'a'.repeat(64) },
    rawBytes: 1,
    storedBytes: 2,
    files: 3,
    chunks: 4,
  },
  app: { pid: 1, nested: [null, { '1': 'a', z: -0.5, __proto__x: true }] },
};

const refusal = (bytes: Uint8Array | string, allowBadVersion = false): string => {
  try {
    parseManifest(Buffer.from(bytes), { subject: 'manifest-00000003.json', allowBadVersion });
  } catch (error) {
    if (!(error instanceof FastFreezeError)) throw error;
    expect(error.code).toBe('image');
    expect(error.message).toContain('manifest-00000003.json');
    return error.reason;
  }
  return '';
};

/** A manifest whose checksum fits although its fields may be wrong. */
function forge(change: (manifest: Record<string, unknown>) => void): string {
  const manifest = JSON.parse(serializeManifest(buildManifest(fields)).toString()) as Record<string, unknown>;
  delete manifest['checksum'];
  change(manifest);
  const body = JSON.stringify(manifest, null, 2).slice(0, -2);
  return `${body},\n  "checksum": "${createHash('sha256').update(body).digest('hex')}"\n}\n`;
}

describe('a manifest', () => {
  test('comes back as it was', () => {
    const manifest = buildManifest(fields);
    const bytes = serializeManifest(manifest);
    expect(parseManifest(bytes, { subject: 'x' })).toEqual(manifest);
    expect(manifest).toMatchObject({ format: 'fastfreeze-image', formatVersion: 1, ...fields });
    expect(JSON.parse(bytes.toString())).toEqual(manifest);
  });

  test('of a finished job has an end and no image', () => {
    const { image, app, ...rest } = fields;
    const finished = buildManifest({ ...rest, state: 'finished', finished: { exitCode: 7, signal: null } });
    expect(parseManifest(serializeManifest(finished), { subject: 'x' })).toEqual(finished);
    expect(image).toBeDefined();
    expect(app).toBeDefined();
  });

  test('carries any record of the engine', () => {
    fc.assert(
      fc.property(fc.jsonValue(), (app) => {
        const manifest = buildManifest({ ...fields, app });
        const back = parseManifest(serializeManifest(manifest), { subject: 'x' });
        expect(JSON.stringify(back.app)).toBe(JSON.stringify(app));
      }),
    );
  });

  test('is refused with any byte flipped or any part missing', () => {
    const good = serializeManifest(buildManifest(fields));
    for (let at = 0; at < good.length; at++) {
      for (const mask of [1, 0x20, 0x80, 0xff]) {
        const damaged = Buffer.from(good);
        damaged[at] = (damaged[at] ?? 0) ^ mask;
        expect(refusal(damaged)).not.toBe('');
        expect(refusal(damaged, true)).not.toBe('');
      }
      expect(refusal(good.subarray(0, at))).not.toBe('');
    }
    expect(refusal(Buffer.concat([good, Buffer.from('\n')]))).not.toBe('');
  });

  // From nothing to nearly right: the spec of our refusals.
  test.each([
    ['', 'cut short or damaged'],
    ['nonsense', 'cut short or damaged'],
    ['"text"', 'cut short or damaged'],
    ['{}', 'another tool'],
    ['{"img_version":"4.1","job_id":"x"}', 'another tool'],
    ['{"format":"fastfreeze-image"}', 'format version null'],
    ['{"format":"fastfreeze-image","formatVersion":2}', 'format version 2'],
    ['{"format":"fastfreeze-image","formatVersion":1}', 'no checksum'],
    [forge((m) => (m['formatVersion'] = 9)), 'format version 9'],
    [forge((m) => (m['format'] = 'other')), 'another tool'],
    [forge((m) => (m['generation'] = 0)), 'generation'],
    [forge((m) => (m['generation'] = 1.5)), 'generation'],
    [forge((m) => (m['state'] = 'running')), 'state'],
    [forge((m) => (m['state'] = 'finished')), 'image'],
    [forge((m) => delete m['image']), 'image'],
    [forge((m) => (m['image'] = [])), 'image must be an object'],
    [forge((m) => (m['createdAt'] = 'yesterday')), 'createdAt'],
    [forge((m) => (m['writer'] = { version: '1' })), 'writer.host'],
    [forge((m) => (image(m)['codec'] = 'gzip')), 'image.codec'],
    [forge((m) => (image(m)['cipher'] = 'aes')), 'image.cipher'],
    [forge((m) => (image(m)['prefix'] = '../x')), 'image.prefix'],
    [forge((m) => (image(m)['shards'] = {})), 'image.shards'],
    [forge((m) => (image(m)['shards'] = [{ name: '../p-1.ffs', sizeBytes: 1 }])), 'image.shards'],
    [forge((m) => (image(m)['shards'] = [{ name: 'p-1.ffs', sizeBytes: -1 }])), 'image.shards[0].sizeBytes'],
    [forge((m) => (image(m)['index'] = { name: 'q.ffi', sizeBytes: 1, sha256: 'a'.repeat(64) })), 'image.index.name'],
    [forge((m) => (image(m)['index'] = { name: 'p.ffi', sizeBytes: 1, sha256: 'A' })), 'image.index.sha256'],
    [forge((m) => (image(m)['baseGeneration'] = null)), 'image.baseGeneration'],
    [forge((m) => (image(m)['baseGeneration'] = 1)), 'image.baseGeneration'],
  ])('%j is refused: %s', (text, reason) => expect(refusal(text)).toContain(reason));

  test('of another version can be tried on request, and is checked all the same', () => {
    expect(
      refusal(
        forge((m) => (m['formatVersion'] = 9)),
        true,
      ),
    ).toBe('');
    expect(
      refusal(
        forge((m) => {
          m['formatVersion'] = 9;
          delete m['writer'];
        }),
        true,
      ),
    ).toContain('writer');
  });

  test('cannot be built from what would not be read', () => {
    const wrong = { ...fields, generation: 5 };
    expect(() => buildManifest(wrong)).toThrow(expect.objectContaining({ code: 'internal' }));
  });
});

function image(manifest: Record<string, unknown>): Record<string, unknown> {
  return manifest['image'] as Record<string, unknown>;
}
