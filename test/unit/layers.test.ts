// SPDX-License-Identifier: Apache-2.0
/* The lint rule that keeps imports going down the layers: it must not die in silence. */
import { beforeAll, describe, expect, jest, test } from '@jest/globals';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { askScript } from './linux/support.js';

jest.setTimeout(60_000);

/** From the users down to the kernel, as docs/architecture.md has them. */
const LAYERS = [
  'action',
  'cli',
  'daemon',
  'batch',
  'notice',
  'engine',
  'container',
  'criu',
  'files',
  'image',
  'store',
  'linux',
  'base',
];

interface Case {
  readonly from: string;
  readonly to: string;
  readonly file: string;
  readonly text: string;
}

const cases: Case[] = LAYERS.flatMap((from) =>
  LAYERS.filter((to) => to !== from).flatMap((to) => [
    { from, to, file: `src/${from}/x.ts`, text: `import { y } from '../${to}/y.js';\ny();\n` },
    {
      from,
      to,
      file: `src/${from}/deep/er/x.ts`,
      text: `import type { Y } from '../../../${to}/deep/y.js';\nexport const y: Y = 1;\n`,
    },
    { from, to, file: `src/${from}/x.ts`, text: `export * from '../${to}/y.js';\n` },
  ]),
);
let refused: readonly string[][];

beforeAll(async () => {
  // The project's own configuration; without types, since the sources are not on disk.
  refused = (await askScript(
    `
    import { createRequire } from 'node:module';
    const require = createRequire(process.cwd() + '/');
    const { ESLint } = require('eslint');
    const overrideConfig = [{ languageOptions: { parserOptions: { projectService: false } } }, require('typescript-eslint').configs.disableTypeChecked];
    const eslint = new ESLint({ cwd: process.cwd(), overrideConfig });
    const results = [];
    for (const { file, text } of ${JSON.stringify(cases)}) {
      const [result] = await eslint.lintText(text, { filePath: file });
      results.push(result.messages.map((m) => m.ruleId + ': ' + m.message));
    }
    console.log(JSON.stringify(results));`,
    [],
    { timeoutMs: 50_000 },
  )) as string[][];
});

describe('the layers', () => {
  test('are those of the folders: a new one must be given its place', () => {
    const folders = readdirSync(join(process.cwd(), 'src'), { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => entry.name);
    expect(folders.sort()).toEqual([...LAYERS].sort());
  });

  test.each(LAYERS)('%s imports what lies below it and nothing above it, in any form', (layer) => {
    cases.forEach((one, i) => {
      if (one.from !== layer) return;
      const messages = (refused[i] ?? ['not linted']).filter((message) =>
        /restricted-imports|^null|not linted/.test(message),
      );
      if (LAYERS.indexOf(one.to) > LAYERS.indexOf(layer)) expect([one, messages]).toEqual([one, []]);
      else {
        expect(messages).toHaveLength(1);
        expect(messages[0]).toContain(`src/${layer} lies below src/${one.to}`);
      }
    });
  });
});
