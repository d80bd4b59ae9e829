// SPDX-License-Identifier: Apache-2.0
import { readFileSync } from 'node:fs';
import type { Cloud } from '../notice/sources/clouds.js';

const VENDORS: readonly (readonly [RegExp, Cloud])[] = [
  [/^Amazon EC2/, 'ec2'],
  [/^Google/, 'gce'],
  [/^Microsoft Corporation/, 'azure'],
];

/** Whose machine a self-hosted runner is, by what its firmware says. GitHub's own are never announced to us: nobody is asked there. */
export function cloudsHere(env: NodeJS.ProcessEnv, vendorFile = '/sys/class/dmi/id/sys_vendor'): Cloud[] {
  if (env['RUNNER_ENVIRONMENT'] === 'github-hosted') return [];
  let vendor: string;
  try {
    vendor = readFileSync(vendorFile, 'utf8');
  } catch {
    return []; // No firmware to ask, as in some containers.
  }
  return VENDORS.flatMap(([pattern, cloud]) => (pattern.test(vendor) ? [cloud] : []));
}
