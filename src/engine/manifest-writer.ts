// SPDX-License-Identifier: Apache-2.0
import { readFileSync } from 'node:fs';
import { hostname, release } from 'node:os';
import type { ImageKeys } from '../image/keys.js';
import { type Manifest, type SealedImage, buildManifest } from '../image/manifest.js';
import { type ExitStatus, signalName } from '../linux/process.js';
import { commandSha256 } from './command-mark.js';
import type { SupervisorConfig } from './config.js';

/** Builds manifests that say who wrote them. */
export interface ManifestWriter {
  checkpoint(generation: number, image: SealedImage, app: unknown, keys?: ImageKeys): Manifest;
  finished(generation: number, status: ExitStatus, command: readonly string[]): Manifest;
}

export function manifestWriter(config: SupervisorConfig): ManifestWriter {
  const common = {
    createdAt: new Date().toISOString(),
    writer: { version: packageVersion(), host: hostname(), kernel: release(), criu: config.criuVersion },
  };
  return {
    checkpoint: (generation, image, app, keys) =>
      buildManifest({ ...common, generation, state: 'checkpoint', image, app }, keys),
    finished: (generation, status, command) =>
      buildManifest({
        ...common,
        generation,
        state: 'finished',
        finished: {
          exitCode: status.code,
          signal: status.signal === null ? null : signalName(status.signal),
          commandSha256: commandSha256(command),
        },
      }),
  };
}

/** Of this program, by its package. */
export function packageVersion(): string {
  const parsed: unknown = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'));
  return typeof parsed === 'object' && parsed !== null && 'version' in parsed ? String(parsed.version) : 'unknown';
}
