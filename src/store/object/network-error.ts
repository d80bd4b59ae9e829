// SPDX-License-Identifier: Apache-2.0

const REASONS: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'nobody listens there (connection refused)',
  ECONNRESET: 'the connection was reset',
  EPIPE: 'the connection was closed',
  ETIMEDOUT: 'the connection timed out',
  ENOTFOUND: 'the name of the host is not known',
  EAI_AGAIN: 'the name of the host could not be looked up',
  EHOSTUNREACH: 'the host cannot be reached',
  ENETUNREACH: 'the network cannot be reached',
  ERR_STREAM_PREMATURE_CLOSE: 'the connection was closed early',
  ECONNABORTED: 'the connection was closed early',
};

const DISTRUSTED = [
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'CERT_HAS_EXPIRED',
  'ERR_TLS_CERT_ALTNAME_INVALID',
];

/** The name of what is wrong with the service's certificate. Does not pass by itself. */
export function certificateReason(error: unknown): string | undefined {
  const code = typeof error === 'object' && error !== null && 'code' in error ? String(error.code) : '';
  return DISTRUSTED.includes(code) ? `its certificate is not trusted (${code})` : undefined;
}

/** Why a connection failed; undefined when it was something else. Such a failure may pass. */
export function networkReason(error: unknown): string | undefined {
  for (let one = error; typeof one === 'object' && one !== null; one = 'cause' in one ? one.cause : undefined) {
    const code = 'code' in one ? String(one.code) : '';
    const reason = REASONS[code];
    if (reason !== undefined) return `${reason} (${code})`;
    // Node's own words for a response that broke off.
    if ('message' in one && /^(aborted|socket hang up|terminated)$/u.test(String(one.message))) {
      return 'the connection was closed early';
    }
  }
  return undefined;
}
