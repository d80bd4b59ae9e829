// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError } from '../../base/errors.js';

export type BucketScheme = 's3' | 'gs';

export interface BucketPath {
  readonly bucket: string;
  /** Empty, or ends with a slash: the name of an object follows. */
  readonly prefix: string;
}

/**
 * `s3://bucket/path` and `gs://bucket/path`, taken literally as the clouds' own tools do: a space, `%` or `ä` in the path
 * is that character in the key. The root of a bucket can hold jobs, but is none itself. Throws `usage`.
 */
export function parseBucketUrl(url: string, what: 'job' | 'place of jobs' = 'job'): BucketPath {
  const [, scheme, bucket, path] = /^([a-z0-9]+):\/\/([^/]*)(?:\/(.*))?$/isu.exec(url) ?? [];
  if (scheme === undefined || bucket === undefined || bucket === '')
    throw refuse(url, 'it has no bucket', 's3://BUCKET/PATH');
  if (!/^[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]$/u.test(bucket)) {
    throw refuse(
      url,
      `${JSON.stringify(bucket)} is no name of a bucket`,
      `${scheme}://BUCKET/PATH, the bucket in lower case`,
    );
  }
  const segments = (path ?? '').split('/').filter((segment) => segment !== '');
  if (segments.length === 0) {
    if (what === 'place of jobs') return { bucket, prefix: '' };
    throw refuse(url, 'a job needs a path of its own in the bucket', `${scheme}://${bucket}/JOB`);
  }
  if (segments.some((segment) => segment === '.' || segment === '..' || /[\0-\x1f\x7f]/u.test(segment))) {
    throw refuse(
      url,
      'its path has a part that many tools cannot address (., .. or a control character)',
      'choose another path',
    );
  }
  const prefix = `${segments.join('/')}/`;
  if (Buffer.byteLength(prefix) > MAX_PREFIX_BYTES) {
    throw refuse(
      url,
      `its path is longer than ${MAX_PREFIX_BYTES} bytes, which leaves no room for names`,
      'choose a shorter one',
    );
  }
  return { bucket, prefix };
}

export function formatBucketUrl(scheme: BucketScheme, { bucket, prefix }: BucketPath): string {
  return prefix === '' ? `${scheme}://${bucket}` : `${scheme}://${bucket}/${prefix.slice(0, -1)}`;
}

/** Keys have at most 1024 bytes, names of objects at most 200. */
const MAX_PREFIX_BYTES = 800;

function refuse(url: string, reason: string, example: string): FastFreezeError {
  return new FastFreezeError({
    code: 'usage',
    op: 'use the image URL',
    subject: JSON.stringify(url),
    reason,
    hint: `give ${example}`,
  });
}
