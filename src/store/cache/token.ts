// SPDX-License-Identifier: Apache-2.0

/** What the token that the runner gave us says about itself; a token that says nothing is let through. */
export interface TokenFacts {
  /** False where every scope of the cache is read-only, as for a pull request from a fork. */
  readonly canWrite: boolean;
  /** Milliseconds since 1970. */
  readonly expiresAtMs: number | undefined;
}

const WRITE = 2;

/** Reads the payload of a JSON Web Token without checking it: that is the service's part. */
export function readToken(token: string): TokenFacts {
  const payload = parseJson(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString('utf8'));
  const { exp, ac } = typeof payload === 'object' && payload !== null ? (payload as Record<string, unknown>) : {};
  const scopes = typeof ac === 'string' ? parseJson(ac) : undefined;
  return {
    canWrite: !Array.isArray(scopes) || scopes.some((scope) => (permissionOf(scope) & WRITE) !== 0),
    expiresAtMs: typeof exp === 'number' ? exp * 1000 : undefined,
  };
}

function permissionOf(scope: unknown): number {
  const found = typeof scope === 'object' && scope !== null && 'Permission' in scope ? scope.Permission : 0;
  return typeof found === 'number' ? found : 0;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}
