// SPDX-License-Identifier: Apache-2.0
import type { FastFreezeError } from '../../base/errors.js';
import { certificateReason, networkReason } from '../object/network-error.js';
import { type Cause, type ServiceCall, serviceError } from '../object/service-error.js';

/** What went wrong with a request to S3, in our words, with a remedy. */
export function s3Error(error: unknown, call: ServiceCall): FastFreezeError {
  return serviceError(error, call, () => causeOf(error, call));
}

function causeOf(error: unknown, call: ServiceCall): Cause {
  const name = nameOfError(error);
  const message = messageOfError(error);
  const status = statusOf(error);
  const known = KNOWN[name]?.(call, message);
  if (known !== undefined) return known;
  const network = networkReason(error);
  if (network !== undefined) return { reason: network, hint: NETWORK_HINT, passing: true };
  const certificate = certificateReason(error);
  if (certificate !== undefined) return { reason: certificate, hint: 'name its authority in NODE_EXTRA_CA_CERTS' };
  if (status === 409) return writing();
  if (status === 412) return { code: 'conflict', reason: 'somebody else has written it first' };
  if (status === 501) return { code: 'unsupported', reason: `the service does not know this request: ${message}` };
  if (status === 403) return denied(call, message);
  if (status === 404) return { code: 'not-found', reason: `it does not exist (${name || message})` };
  if (status === 301 || status === 307 || status === 400) {
    const elsewhere = /region|PermanentRedirect|endpoint/iu.test(`${name} ${message}`);
    if (elsewhere) return wrongRegion(call, message);
  }
  if (status !== undefined && (status >= 500 || status === 429 || status === 408)) {
    return { reason: `the service failed with ${status} (${name || message})`, passing: true };
  }
  if (/uv_os_homedir/u.test(message))
    return { reason: 'this user has no home directory', hint: 'set HOME (HOME=/ is enough)' };
  if (/^Region is missing/u.test(message)) return { reason: 'no region is known', hint: 'set AWS_REGION' };
  if (/could not load credentials/iu.test(message)) return noCredentials(message);
  return { reason: `${name === '' || name === 'Error' ? '' : `${name}: `}${message}` };
}

const NETWORK_HINT = 'see whether this machine reaches the service (AWS_ENDPOINT_URL, proxy, firewall)';

const KNOWN: Readonly<Record<string, (call: ServiceCall, message: string) => Cause>> = {
  NoSuchBucket: ({ bucket }) => ({
    code: 'not-found',
    reason: `there is no bucket ${bucket}`,
    hint: `make it (aws s3 mb s3://${bucket}), or correct the URL`,
  }),
  AccessDenied: denied,
  AllAccessDisabled: denied,
  InvalidAccessKeyId: () => ({
    reason: 'the service does not know the access key',
    hint: 'correct the credentials (AWS_ACCESS_KEY_ID, AWS_PROFILE or the role of this machine)',
  }),
  SignatureDoesNotMatch: () => ({
    // Some services say the same of a key that they do not know.
    reason: 'the service refuses the signature: the access key or its secret is wrong, or the region',
    hint: 'correct AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_PROFILE or AWS_REGION',
  }),
  ExpiredToken: expired,
  ExpiredTokenException: expired,
  TokenRefreshRequired: expired,
  RequestTimeTooSkewed: () => ({
    reason: "this machine's clock is wrong: it differs from the service's by more than 15 minutes",
    hint: 'set the clock (timedatectl set-ntp true)',
  }),
  PermanentRedirect: wrongRegion,
  AuthorizationHeaderMalformed: wrongRegion,
  IllegalLocationConstraintException: wrongRegion,
  PreconditionFailed: () => ({ code: 'conflict', reason: 'somebody else has written it first' }),
  ConditionalRequestConflict: writing,
  OperationAborted: writing,
  NoSuchUpload: () => ({ reason: 'the upload was called off by somebody else, or by a rule of the bucket' }),
  NotImplemented: (_call, message) => ({
    code: 'unsupported',
    reason: `the service does not know this request: ${message}`,
  }),
  SlowDown: slow,
  ServiceUnavailable: slow,
  Throttling: slow,
  ThrottlingException: slow,
  RequestTimeout: slow,
  InternalError: slow,
  BadDigest: changed,
  XAmzContentSHA256Mismatch: changed,
  TimeoutError: () => ({ reason: 'the service did not answer in time', hint: NETWORK_HINT, passing: true }),
  CredentialsProviderError: (_call, message) => noCredentials(message),
  EntityTooLarge: () => ({ reason: 'the service does not take objects of this size' }),
  QuotaExceeded: () => ({ reason: 'the quota of the bucket is used up', hint: 'free space there, or lower --keep' }),
};

function denied({ bucket, op }: ServiceCall, message: string): Cause {
  return {
    reason: `permission denied (${message})`,
    hint: `allow this identity to ${op} in s3://${bucket} (GetObject, PutObject, DeleteObject, ListBucket, AbortMultipartUpload, ListBucketMultipartUploads)`,
  };
}

/** The service itself says: try again. It then tells whether it is there. */
function writing(): Cause {
  return { code: 'conflict', reason: 'somebody else is writing it', passing: true };
}

function expired(): Cause {
  return {
    reason: 'the credentials have expired',
    hint: 'renew them (aws sso login, or a new AWS_SESSION_TOKEN); a role renews itself',
  };
}

function wrongRegion({ bucket }: ServiceCall, message: string): Cause {
  const region = /expecting '([a-z0-9-]+)'/iu.exec(message)?.[1];
  if (region !== undefined) {
    return { reason: `the bucket ${bucket} is in another region, ${region}`, hint: `set AWS_REGION=${region}` };
  }
  return {
    reason: `the bucket ${bucket} is in another region`,
    hint: `set AWS_REGION to that of the bucket (aws s3api get-bucket-location --bucket ${bucket})`,
  };
}

function changed(): Cause {
  return { reason: 'bytes were changed on their way to the service', passing: true };
}

function slow(_call: ServiceCall, message: string): Cause {
  return { reason: `the service is overloaded (${message})`, passing: true };
}

function noCredentials(message: string): Cause {
  return {
    reason: `there are no credentials (${message.split('\n')[0] ?? ''})`,
    hint: 'set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or give this machine a role',
  };
}

/** The service refused the request for its date. The SDK has then set its clock by the date of the answer. */
export function isMisdated(error: unknown): boolean {
  if (nameOfError(error) === 'RequestTimeTooSkewed') return true;
  // Where the answer has no body to say so.
  return metadataOf(error)?.clockSkewCorrected === true;
}

/** By shape: Node's own errors are of another realm where our code runs in a context of its own, as under jest. */
export function nameOfError(error: unknown): string {
  return typeof error === 'object' && error !== null && 'name' in error ? String(error.name) : '';
}

function messageOfError(error: unknown): string {
  return typeof error === 'object' && error !== null && 'message' in error ? String(error.message) : String(error);
}

/** Undefined when no service has answered. */
export function statusOf(error: unknown): number | undefined {
  return metadataOf(error)?.httpStatusCode;
}

interface Metadata {
  readonly httpStatusCode?: number;
  readonly clockSkewCorrected?: boolean;
}

function metadataOf(error: unknown): Metadata | undefined {
  if (typeof error !== 'object' || error === null || !('$metadata' in error)) return undefined;
  return error.$metadata as Metadata | undefined;
}
