// SPDX-License-Identifier: Apache-2.0
import { rmSync } from 'node:fs';

function globalTeardown(): void {
  const stage = process.env['FF_TEST_STAGE'];
  if (stage !== undefined) rmSync(stage, { recursive: true, force: true });
}

export { globalTeardown as default };
