// SPDX-License-Identifier: Apache-2.0
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { credentialsIn } from '../../../src/action/preserved.js';
import { makeDirectory } from '../linux/support.js';

test('credentials that other actions leave in a preserved folder are found, and those beside it are not', () => {
  const workspace = makeDirectory();
  const [source, google, other] = ['source', 'gha-creds-0a1b.json', 'creds.json'].map((name) => join(workspace, name));
  const config = join(workspace, '.git/config');
  for (const path of [source, join(workspace, '.git')]) mkdirSync(path ?? '');
  for (const path of [google, other]) writeFileSync(path ?? '', '{}');
  writeFileSync(config, '[http "https://github.com/"]\n\textraheader = AUTHORIZATION: basic eDp5\n');
  const env = { GOOGLE_APPLICATION_CREDENTIALS: other };
  expect(credentialsIn([workspace], env)).toEqual([google, config, other]);
  expect(credentialsIn([source ?? '', join(workspace, 'missing')], env)).toEqual([]);
  writeFileSync(config, '[core]\n\tbare = false\n');
  expect(credentialsIn([workspace], {})).toEqual([google]);
});
