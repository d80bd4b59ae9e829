// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from '@jest/globals';
import { FastFreezeError, type ErrorCode } from '../../../../src/base/errors.js';
import type { ServiceCall } from '../../../../src/store/object/service-error.js';
import { isMisdated, s3Error } from '../../../../src/store/s3/s3-error.js';

const call: ServiceCall = {
  op: 'write',
  subject: 's3://jobs/a/b',
  bucket: 'jobs',
  aborted: false,
  timedOut: false,
};

interface Row {
  readonly name?: string;
  readonly status?: number;
  readonly message?: string;
  readonly errno?: string;
  readonly code: ErrorCode;
  readonly reason: RegExp;
  readonly hint?: RegExp;
  readonly passing?: boolean;
}

const NETWORK = /AWS_ENDPOINT_URL/;

const ROWS: readonly Row[] = [
  { name: 'NoSuchBucket', status: 404, code: 'not-found', reason: /no bucket jobs/, hint: /aws s3 mb s3:\/\/jobs/ },
  { name: 'NoSuchKey', status: 404, code: 'not-found', reason: /does not exist/ },
  { name: 'NoSuchUpload', status: 404, code: 'store', reason: /called off/ },
  { name: 'AccessDenied', status: 403, code: 'store', reason: /permission denied/, hint: /PutObject.*ListBucket/ },
  { name: 'AllAccessDisabled', status: 403, code: 'store', reason: /permission denied/, hint: /s3:\/\/jobs/ },
  { name: 'Forbidden', status: 403, code: 'store', reason: /permission denied/, hint: /s3:\/\/jobs/ },
  { name: 'InvalidAccessKeyId', status: 403, code: 'store', reason: /access key/, hint: /AWS_ACCESS_KEY_ID/ },
  {
    name: 'SignatureDoesNotMatch',
    status: 403,
    code: 'store',
    reason: /signature.*key.*secret.*region/,
    hint: /AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY/,
  },
  { name: 'ExpiredToken', status: 400, code: 'store', reason: /expired/, hint: /AWS_SESSION_TOKEN/ },
  { name: 'ExpiredTokenException', status: 400, code: 'store', reason: /expired/, hint: /renew/ },
  { name: 'TokenRefreshRequired', status: 400, code: 'store', reason: /expired/, hint: /renew/ },
  { name: 'RequestTimeTooSkewed', status: 403, code: 'store', reason: /clock is wrong/, hint: /set the clock/ },
  { name: 'PermanentRedirect', status: 301, code: 'store', reason: /another region/, hint: /AWS_REGION/ },
  { name: 'AuthorizationHeaderMalformed', status: 400, code: 'store', reason: /another region/, hint: /AWS_REGION/ },
  {
    name: 'AuthorizationHeaderMalformed',
    status: 400,
    message: "The authorization header is malformed; the region 'eu-west-1' is wrong; expecting 'us-east-2'",
    code: 'store',
    reason: /jobs is in another region, us-east-2$/,
    hint: /^set AWS_REGION=us-east-2$/,
  },
  { name: 'IllegalLocationConstraintException', status: 400, code: 'store', reason: /region/, hint: /AWS_REGION/ },
  { status: 400, message: 'the region is wrong', code: 'store', reason: /another region/, hint: /AWS_REGION/ },
  { message: 'uv_os_homedir returned ENOENT', code: 'store', reason: /no home directory/, hint: /HOME/ },
  { message: 'Region is missing', code: 'store', reason: /no region/, hint: /AWS_REGION/ },
  { name: 'PreconditionFailed', status: 412, code: 'conflict', reason: /written it first/ },
  { status: 412, code: 'conflict', reason: /written it first/ },
  { name: 'ConditionalRequestConflict', status: 409, code: 'conflict', reason: /is writing it/, passing: true },
  { name: 'OperationAborted', status: 409, code: 'conflict', reason: /is writing it/, passing: true },
  { status: 409, code: 'conflict', reason: /is writing it/, passing: true },
  { name: 'NotImplemented', status: 501, code: 'unsupported', reason: /does not know this request/ },
  { status: 501, code: 'unsupported', reason: /does not know this request/ },
  { name: 'SlowDown', status: 503, code: 'store', reason: /overloaded/, passing: true },
  { name: 'ServiceUnavailable', status: 503, code: 'store', reason: /overloaded/, passing: true },
  { name: 'Throttling', status: 400, code: 'store', reason: /overloaded/, passing: true },
  { name: 'ThrottlingException', status: 400, code: 'store', reason: /overloaded/, passing: true },
  { name: 'RequestTimeout', status: 400, code: 'store', reason: /overloaded/, passing: true },
  { name: 'InternalError', status: 500, code: 'store', reason: /overloaded/, passing: true },
  { name: 'Unknown', status: 502, code: 'store', reason: /failed with 502/, passing: true },
  { name: 'Unknown', status: 429, code: 'store', reason: /failed with 429/, passing: true },
  { name: 'Unknown', status: 408, code: 'store', reason: /failed with 408/, passing: true },
  { name: 'BadDigest', status: 400, code: 'store', reason: /changed on their way/, passing: true },
  {
    name: 'XAmzContentSHA256Mismatch',
    status: 400,
    code: 'store',
    reason: /changed on their way/,
    passing: true,
  },
  { name: 'TimeoutError', code: 'store', reason: /in time/, hint: NETWORK, passing: true },
  { name: 'CredentialsProviderError', code: 'store', reason: /no credentials/, hint: /AWS_PROFILE/ },
  {
    message: 'Could not load credentials from any providers',
    code: 'store',
    reason: /credentials/,
    hint: /AWS_PROFILE/,
  },
  { name: 'EntityTooLarge', status: 400, code: 'store', reason: /this size/ },
  { name: 'QuotaExceeded', status: 403, code: 'store', reason: /quota/, hint: /--keep/ },
  { errno: 'ECONNREFUSED', code: 'store', reason: /refused.*ECONNREFUSED/, hint: NETWORK, passing: true },
  { errno: 'ECONNRESET', code: 'store', reason: /reset/, hint: NETWORK, passing: true },
  { errno: 'ENOTFOUND', code: 'store', reason: /not known/, hint: NETWORK, passing: true },
  { message: 'socket hang up', code: 'store', reason: /closed early/, hint: NETWORK, passing: true },
  { errno: 'CERT_HAS_EXPIRED', code: 'store', reason: /not trusted/, hint: /NODE_EXTRA_CA_CERTS/ },
  { name: 'MalformedXML', status: 400, message: 'odd', code: 'store', reason: /^MalformedXML: odd$/ },
];

describe('an error of S3', () => {
  test.each(ROWS.map((row) => [row.name ?? row.errno ?? row.message ?? '', row.status ?? 'no status', row] as const))(
    '%s (%s) is put in words',
    (_name, _status, row) => {
      const cause = makeCause(row);
      const error = s3Error(cause, call);
      expect(error.code).toBe(row.code);
      expect(error.reason).toMatch(row.reason);
      expect(error.message).toContain('cannot write s3://jobs/a/b: ');
      if (row.hint === undefined) expect(error.hint).toBeUndefined();
      else expect(error.hint).toMatch(row.hint);
      expect(error.passing).toBe(row.passing ?? false);
      expect(error.cause).toBe(cause);
    },
  );

  test('of a call that its caller ended is no error of the service', () => {
    expect(s3Error(makeCause(ROWS[0]), { ...call, aborted: true })).toMatchObject({ code: 'aborted', passing: false });
  });

  test('of a call that took too long may pass', () => {
    const error = s3Error(new Error('Request aborted'), { ...call, timedOut: true });
    expect(error).toMatchObject({ code: 'store', passing: true });
    expect(error.reason).toContain('in time');
  });

  test('of ours stays as it is', () => {
    const ours = new FastFreezeError({ code: 'store', op: 'read', reason: 'ended early' });
    expect(s3Error(ours, call)).toBe(ours);
  });

  test('of a request with the wrong date is told by its name, or where it has none by what the SDK notes', () => {
    expect(isMisdated(makeCause({ ...SKEWED, name: 'RequestTimeTooSkewed' }))).toBe(true);
    expect(isMisdated({ name: '403', $metadata: { httpStatusCode: 403, clockSkewCorrected: true } })).toBe(true);
    expect(isMisdated(makeCause(SKEWED))).toBe(false);
    expect(isMisdated(undefined)).toBe(false);
  });

  test('wrapped by the SDK shows what the connection said', () => {
    const inner = Object.assign(new Error('connect'), { code: 'ECONNREFUSED' });
    expect(s3Error(new Error('failed', { cause: inner }), call).reason).toContain('ECONNREFUSED');
  });
});

const SKEWED: Row = { status: 403, code: 'store', reason: /clock/ };

/** As the SDK throws it; Node's own errors are of another realm under jest, so it is recognised by shape. */
function makeCause(row: Row | undefined): unknown {
  return {
    name: row?.name ?? 'Error',
    message: row?.message ?? 'what the service said',
    ...(row?.errno === undefined ? {} : { code: row.errno }),
    ...(row?.status === undefined ? {} : { $metadata: { httpStatusCode: row.status } }),
  };
}
