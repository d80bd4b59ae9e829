// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from '@jest/globals';
import { FastFreezeError } from '../../../../src/base/errors.js';
import { gsError, isMissingObject, statusOf } from '../../../../src/store/gs/gs-error.js';

const CALL = { op: 'write', subject: 'gs://b/job/a', bucket: 'b', aborted: false, timedOut: false };

const body = (code: number, message: string, reason: string): unknown => ({
  error: { code, message, errors: [{ reason, message, domain: 'global' }] },
});

/** The shapes in which a status comes. */
const SHAPES: Readonly<Record<string, (status: number, message?: string, reason?: string) => Error>> = {
  "the SDK's ApiError": (code, message = 'said', reason = '') =>
    Object.assign(new Error(message), { code, errors: [{ reason, message, domain: 'global' }] }),
  'a GaxiosError': (status, message = 'said', reason = '') =>
    Object.assign(new Error(`Request failed with status code ${status}`), {
      status,
      response: { status, data: body(status, message, reason) },
    }),
  "an error with only a response, and the service's words as text": (status, message = 'said', reason = '') =>
    Object.assign(new Error('failed'), {
      code: 'ERR_BAD',
      response: { statusCode: status, data: JSON.stringify(body(status, message, reason)) },
    }),
  'an ApiError with digits, and JSON for a message': (status, message = 'said', reason = '') =>
    Object.assign(new Error(JSON.stringify(body(status, message, reason))), { code: String(status) }),
};

describe.each(Object.entries(SHAPES))('%s', (_, make) => {
  test.each<[number, string, string, string, boolean, string]>([
    [412, 'At least one of the pre-conditions', 'conditionNotMet', 'conflict', false, 'somebody else has written it'],
    [409, 'taken', 'conflict', 'conflict', false, 'somebody else'],
    [404, 'No such object: b/job/a', 'notFound', 'not-found', false, 'No such object'],
    [404, 'The specified bucket does not exist.', 'notFound', 'not-found', false, 'there is no bucket b'],
    [410, 'Gone', 'gone', 'store', false, 'not there any more'],
    [501, 'what?', 'notImplemented', 'unsupported', false, 'does not know this request: what?'],
    [500, 'Backend Error', 'backendError', 'store', true, 'failed with 500 (Backend Error)'],
    [503, 'later', 'backendError', 'store', true, 'failed with 503'],
    [504, 'later', '', 'store', true, 'failed with 504'],
    [408, 'late', '', 'store', true, 'failed with 408'],
    [429, 'slow down', 'rateLimitExceeded', 'store', true, 'overloaded'],
    [403, 'slow down', 'userRateLimitExceeded', 'store', true, 'overloaded'],
    [403, 'x does not have storage.objects.create access', 'forbidden', 'store', false, 'permission denied'],
    [403, 'Permission denied on userProject', 'forbidden', 'store', false, 'requester to pay'],
    [400, 'Bucket is a requester pays bucket but no user project provided.', 'required', 'store', false, 'to pay'],
    [401, 'Anonymous caller', 'required', 'store', false, 'does not accept the credentials'],
    [400, 'Provided MD5 hash "a" doesn\'t match calculated MD5 hash "b".', 'invalid', 'store', true, 'changed'],
    [400, 'Invalid argument.', 'invalid', 'store', false, 'refuses it with 400 (Invalid argument.)'],
  ])('%i, %s', (status, message, reason, code, passing, text) => {
    const thrown = make(status, message, reason);
    expect(statusOf(thrown)).toBe(status);
    const error = gsError(thrown, CALL);
    expect(error).toMatchObject({ code, passing, op: 'write', subject: 'gs://b/job/a' });
    expect(error.message).toContain(text);
    expect(error.message).not.toContain('\n');
  });

  test('a missing object is told from a missing bucket', () => {
    expect(isMissingObject(make(404, 'No such object: b/a'))).toBe(true);
    expect(isMissingObject(make(404, 'The specified bucket does not exist.'))).toBe(false);
    expect(isMissingObject(make(403))).toBe(false);
  });
});

describe('credentials', () => {
  test.each([
    ['Could not load the default credentials. Browse to the docs\nfor more.', 'there are no credentials'],
    ['The file at /x.json does not exist, or it is not a file.', 'there are no credentials'],
    ['Could not refresh access token: unsuccessful response status code', 'there are no credentials'],
    ['Token has been expired or revoked.', 'expired'],
  ])('%j', (message, text) => {
    const error = gsError(new Error(message), CALL);
    expect(error).toMatchObject({ code: 'store', passing: false });
    expect(error.message).toContain(text);
    expect(error.hint).toMatch(/gcloud|GOOGLE_APPLICATION_CREDENTIALS/);
  });

  test('that the server of tokens refuses are expired, or made at a wrong time', () => {
    const refusal = (error_description: string): Error =>
      Object.assign(new Error('invalid_grant'), {
        status: 400,
        response: { status: 400, data: { error: 'invalid_grant', error_description } },
      });
    expect(gsError(refusal('Bad Request'), CALL).message).toContain('expired');
    const late = refusal('Invalid JWT: Token must be in a reasonable timeframe. Check your iat and exp values.');
    expect(gsError(late, CALL).passing).toBe(false);
    expect(gsError(late, CALL).hint).toContain('clock');
  });
});

describe('the network', () => {
  test.each([
    [Object.assign(new Error('connect ECONNREFUSED 127.0.0.1:1'), { code: 'ECONNREFUSED' }), 'nobody listens'],
    [Object.assign(new Error('request failed'), { code: 'ECONNRESET' }), 'reset'],
    [new Error('aborted'), 'closed early'],
    [new Error('network timeout at: http://x/'), 'broke off, or stood still'],
  ])('%s may pass', (thrown, text) => {
    const error = gsError(thrown, CALL);
    expect(error.passing).toBe(true);
    expect(error.message).toContain(text);
  });
});

test('what the caller ended is no failure of the service', () => {
  const thrown = Object.assign(new Error('x'), { code: 503 });
  expect(gsError(thrown, { ...CALL, aborted: true })).toMatchObject({ code: 'aborted', passing: false });
  expect(gsError(thrown, { ...CALL, timedOut: true })).toMatchObject({ code: 'store', passing: true });
});

test('the name of an upload, which is its key, is not told', () => {
  const error = gsError(new Error('request to http://x/o?uploadType=resumable&upload_id=SECRET failed'), CALL);
  expect(error.message).not.toContain('SECRET');
});

test('ours pass through, and anything may be thrown', () => {
  const ours = new FastFreezeError({ code: 'image', op: 'x', reason: 'y' });
  expect(gsError(ours, CALL)).toBe(ours);
  for (const odd of [undefined, null, 7, 'text', {}, new Error('')]) {
    expect(gsError(odd, CALL)).toMatchObject({ code: 'store', passing: false });
  }
});
