// SPDX-License-Identifier: Apache-2.0
import type { FastFreezeError } from '../../base/errors.js';
import { networkReason } from '../object/network-error.js';
import { type Cause, type ServiceCall, serviceError } from '../object/service-error.js';

/** What went wrong with a request to Google Cloud Storage, in our words, with a remedy. */
export function gsError(error: unknown, call: ServiceCall): FastFreezeError {
  return serviceError(error, call, () => causeOf(error, call));
}

/**
 * The HTTP status, wherever this error keeps it: `code` of the SDK's ApiError (a number, or its digits), `status` of a
 * GaxiosError, or `status` / `statusCode` of the response that hangs on either.
 */
export function statusOf(error: unknown): number | undefined {
  if (typeof error !== 'object' || error === null) return undefined;
  const { code, status, response } = error as Fields;
  for (const one of [code, status, response?.status, response?.statusCode]) {
    const number = typeof one === 'string' && /^\d{3}$/u.test(one) ? Number(one) : one;
    if (typeof number === 'number' && number >= 100 && number <= 599) return number;
  }
  return undefined;
}

/** An object that is not there; not a bucket that is not there, which answers the same 404. */
export function isMissingObject(error: unknown): boolean {
  return statusOf(error) === 404 && !isMissingBucket(said(error));
}

interface Fields {
  readonly code?: unknown;
  readonly status?: unknown;
  readonly message?: unknown;
  readonly errors?: unknown;
  readonly response?: { readonly status?: unknown; readonly statusCode?: unknown; readonly data?: unknown };
}

interface Said {
  readonly message: string;
  /** The service's machine-readable words, such as `rateLimitExceeded`. */
  readonly reasons: readonly string[];
}

function causeOf(error: unknown, call: ServiceCall): Cause {
  const told = said(error);
  // Before the status: the servers that give out tokens answer with a status of their own.
  const credentials = credentialsCause(told.message);
  if (credentials !== undefined) return credentials;
  const status = statusOf(error);
  if (status !== undefined) return statusCause(status, told, call);
  const network = networkReason(error);
  if (network !== undefined) return { reason: network, hint: NETWORK_HINT, passing: true };
  if (/network timeout|timed out|premature close|socket hang up|aborted/iu.test(told.message)) {
    return { reason: 'the connection broke off, or stood still', hint: NETWORK_HINT, passing: true };
  }
  return { reason: told.message };
}

const NETWORK_HINT = 'see whether this machine reaches the service (STORAGE_EMULATOR_HOST, proxy, firewall)';

function statusCause(status: number, told: Said, call: ServiceCall): Cause {
  const { message, reasons } = told;
  if (status === 412 || status === 409) return { code: 'conflict', reason: 'somebody else has written it first' };
  if (status === 501) return { code: 'unsupported', reason: `the service does not know this request: ${message}` };
  if (status === 404) {
    if (!isMissingBucket(told)) return { code: 'not-found', reason: `it does not exist (${message})` };
    return {
      code: 'not-found',
      reason: `there is no bucket ${call.bucket}`,
      hint: `make it (gcloud storage buckets create gs://${call.bucket}), or correct the URL`,
    };
  }
  if (status === 410) return { reason: `it is not there any more (${message})` };
  if (status === 429 || reasons.some((reason) => /rateLimitExceeded$/iu.test(reason))) {
    return { reason: `the service is overloaded (${message})`, passing: true };
  }
  if (/requester pays|userProject/iu.test(`${message} ${reasons.join(' ')}`)) {
    return {
      reason: `the bucket ${call.bucket} wants the requester to pay, or this identity may not use the project that should`,
      hint: 'set FF_GS_USER_PROJECT to a project that this identity may use (serviceusage.services.use)',
    };
  }
  if (status === 401) {
    return {
      reason: `the service does not accept the credentials (${message})`,
      hint: 'renew them (gcloud auth application-default login), or correct GOOGLE_APPLICATION_CREDENTIALS',
    };
  }
  if (status === 403) {
    return {
      reason: `permission denied (${message})`,
      hint: `allow this identity to ${call.op} in gs://${call.bucket} (role Storage Object User; with FF_GS_KMS_KEY, the service's agent needs that key)`,
    };
  }
  if (status === 400 && /md5|crc32c|checksum|hash/iu.test(message)) {
    return { reason: `bytes were changed on their way to the service (${message})`, passing: true };
  }
  if (status >= 500 || status === 408)
    return { reason: `the service failed with ${status} (${message})`, passing: true };
  return { reason: `the service refuses it with ${status} (${message})` };
}

function isMissingBucket({ message }: Said): boolean {
  return /bucket does not exist|no such bucket/iu.test(message);
}

function credentialsCause(message: string): Cause | undefined {
  if (/reasonable timeframe|\biat\b.*\bexp\b/iu.test(message)) {
    return {
      reason: "this machine's clock is wrong: the service refuses a token made at its time",
      hint: 'set the clock (timedatectl set-ntp true)',
    };
  }
  if (/invalid_grant|invalid_rapt|token has been expired or revoked/iu.test(message)) {
    return {
      reason: 'the credentials have expired, or were taken back',
      hint: 'renew them (gcloud auth application-default login); a service account renews itself',
    };
  }
  if (/default credentials|does not exist, or it is not a file|could not refresh access token/iu.test(message)) {
    return {
      reason: `there are no credentials (${message})`,
      hint: 'set GOOGLE_APPLICATION_CREDENTIALS, run gcloud auth application-default login, or give this machine a service account',
    };
  }
  return undefined;
}

/** What the service said, out of its JSON wherever that hangs on the error; one line. */
function said(error: unknown): Said {
  if (typeof error !== 'object' || error === null) return { message: oneLine(String(error)), reasons: [] };
  const { message, errors, response } = error as Fields;
  const text = typeof message === 'string' ? message : '';
  const body = bodyOf(response?.data) ?? bodyOf(text);
  const list = body?.errors ?? errors;
  const reasons = Array.isArray(list) ? list.map(reasonOf).filter((one) => one !== '') : [];
  return { message: oneLine(body?.message ?? (text === '' ? 'no reason given' : text)), reasons };
}

function reasonOf(one: unknown): string {
  const reason = typeof one === 'object' && one !== null && 'reason' in one ? one.reason : undefined;
  return typeof reason === 'string' ? reason : '';
}

function bodyOf(data: unknown): { readonly message?: string; readonly errors?: unknown } | undefined {
  const parsed = typeof data === 'string' ? parse(data) : data;
  if (typeof parsed !== 'object' || parsed === null || !('error' in parsed)) return undefined;
  // An OAuth server says `{"error": "invalid_grant", "error_description": ...}`.
  if (typeof parsed.error === 'string') {
    const more = 'error_description' in parsed ? `: ${String(parsed.error_description)}` : '';
    return { message: `${parsed.error}${more}` };
  }
  return parsed.error ?? undefined;
}

function parse(text: string): unknown {
  if (!text.startsWith('{')) return undefined;
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** The name of an upload is all that one needs to write into it: it does not belong in a log. */
function oneLine(text: string): string {
  const line = text.split('\n', 1)[0] ?? '';
  return line.replace(/upload_id=[^\s&"]+/gu, 'upload_id=...').slice(0, 300);
}
