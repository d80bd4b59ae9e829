// SPDX-License-Identifier: Apache-2.0
// What goes over the wire for a part, by the real SDK, to a server that only notes it.
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingHttpHeaders, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { crc32 } from 'node:zlib';
import { createS3Client } from '../../../../src/store/s3/s3-client.js';
import { readS3Settings } from '../../../../src/store/s3/s3-settings.js';
import { expectCode } from '../conformance.js';

interface Got {
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
}

interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
}

const saved = { ...process.env };
const never = { signal: new AbortController().signal };
let server: Server;
let got: Got[];
let answer: (got: Got) => Answer;

beforeEach(async () => {
  got = [];
  answer = () => ({ status: 200, headers: { etag: '"part"' } });
  server = createServer((request, response) => {
    const pieces: Buffer[] = [];
    request.on('data', (piece: Buffer) => pieces.push(piece));
    request.on('end', () => {
      const one = { headers: request.headers, body: Buffer.concat(pieces) };
      got.push(one);
      const { status, headers } = answer(one);
      response.writeHead(status, headers).end();
    });
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  Object.assign(process.env, {
    AWS_ACCESS_KEY_ID: 'test',
    AWS_SECRET_ACCESS_KEY: 'secret',
    AWS_REGION: 'us-east-1',
    AWS_EC2_METADATA_DISABLED: 'true',
    AWS_ENDPOINT_URL_S3: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
  });
});

afterEach(async () => {
  process.env = { ...saved };
  server.close();
  server.closeAllConnections();
  await once(server, 'close');
});

const pieces = [Buffer.alloc(300_000, 1), Buffer.alloc(7, 2), Buffer.alloc(200_000, 3)];
const whole = Buffer.concat(pieces);
const part = { number: 1, offset: 0, isLast: false };
const upload = { name: 'a', id: 'id' };
const aClient = () => createS3Client({ bucket: 'bucket', prefix: 'job/' }, readS3Settings(process.env));

/** As the service writes it: base64 of the big-endian CRC-32. */
function crcOf(bytes: Buffer): string {
  const sum = Buffer.alloc(4);
  sum.writeUInt32BE(crc32(bytes));
  return sum.toString('base64');
}

describe('a part for S3', () => {
  test('has its length and checksum, is not hashed by the SDK, and is the pieces in their order', async () => {
    expect(await aClient().putPart(upload, part, pieces, never)).toEqual({
      number: 1,
      sizeBytes: whole.length,
      receipt: '"part"',
      checksum: crcOf(whole),
    });
    expect(got).toHaveLength(1);
    expect(got[0]?.body.equals(whole)).toBe(true);
    expect(got[0]?.headers).toMatchObject({
      'content-length': String(whole.length),
      'x-amz-checksum-crc32': crcOf(whole),
      'x-amz-content-sha256': 'UNSIGNED-PAYLOAD',
    });
    expect(got[0]?.headers['transfer-encoding']).toBeUndefined();
  });

  test('has an MD5 as well, until the service has shown that it looks at the other checksum', async () => {
    const client = aClient();
    const md5 = createHash('md5').update(whole).digest('base64');
    await client.putPart(upload, part, pieces, never);
    answer = ({ body }) => ({ status: 200, headers: { etag: '"part"', 'x-amz-checksum-crc32': crcOf(body) } });
    await client.putPart(upload, part, pieces, never);
    await client.putPart(upload, part, pieces, never);
    expect(got.map(({ headers }) => headers['content-md5'])).toEqual([md5, md5, undefined]);
  });

  test('that the service got otherwise is an error, after which it may be sent again', async () => {
    answer = () => ({ status: 200, headers: { etag: '"part"', 'x-amz-checksum-crc32': 'AAAAAA==' } });
    const error = await expectCode('store', aClient().putPart(upload, part, pieces, never), 'other bytes');
    expect(error.passing).toBe(true);
  });

  test('is sent again whole where the bucket turns out to be in another region', async () => {
    answer = ({ headers }) =>
      headers.authorization?.includes('/eu-central-1/') === true
        ? { status: 200, headers: { etag: '"there"' } }
        : { status: 301, headers: { 'x-amz-bucket-region': 'eu-central-1' } };
    expect(await aClient().putPart(upload, part, pieces, never)).toMatchObject({ receipt: '"there"' });
    expect(got.map(({ body }) => body.equals(whole))).toEqual([true, true]);
  });
});
