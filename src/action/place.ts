// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError } from '../base/errors.js';
import { jobUrl } from '../store/job-url.js';
import { openStore } from '../store/store.js';
import type { Inputs } from './inputs.js';

/** Where the images of the job go. Throws `usage` for a URL that nothing can be kept under. */
export function imagePlace({ imageUrl, imageBase }: Inputs, jobId: string): string {
  if (imageUrl === '' && imageBase === '') {
    throw new FastFreezeError({
      code: 'usage',
      op: 'choose a place for the image',
      reason: 'neither image-base nor image-url is given',
      hint: 'image-base: s3://bucket/path, gs://bucket/path or file:/path',
    });
  }
  const url = imageUrl === '' ? jobUrl(imageBase, jobId) : imageUrl;
  openStore(url);
  return url;
}
