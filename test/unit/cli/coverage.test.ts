// SPDX-License-Identifier: Apache-2.0
// Every option of --help and every variable that is documented is named by a test of what it does.
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from '@jest/globals';
import type { Command } from '../../../src/cli/command.js';

const root = fileURLToPath(new URL('../../../../', import.meta.url));
const COMMAND_FILES = readdirSync(join(root, 'src/cli')).filter((name) =>
  /^export const \w+Command: Command/m.test(readFileSync(join(root, 'src/cli', name), 'utf8')),
);

const integration = testsBelow('test/integration');
const all = [...integration, ...testsBelow('test/unit'), ...testsBelow('test/support')];

/** Texts of the tests below a folder, this one apart: what it names it does not test. */
function testsBelow(folder: string): string[] {
  return readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts') && !name.endsWith('coverage.test.ts'))
    .map((name) => readFileSync(join(root, folder, name), 'utf8'));
}

async function loadCommand(file: string): Promise<Command> {
  const module = (await import(`../../../src/cli/${file.replace(/\.ts$/, '.js')}`)) as Record<string, Command>;
  const found = Object.entries(module).find(([name]) => name.endsWith('Command'))?.[1];
  if (found === undefined) throw new Error(`${file} has no command`);
  return found;
}

function isWordIn(text: string, word: string): boolean {
  return new RegExp(`${word.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')}(?![\\w-])`).test(text);
}

/** Whether a test gives this option to this command. `run` and `checkpoint` have helpers; the others are called by their name. */
function gives(text: string, command: string, option: string): boolean {
  if (!isWordIn(text, option)) return false;
  if (command === 'run') return true;
  if (command !== 'checkpoint') return text.includes(`'${command}'`);
  const calls = text.matchAll(/(?:\b(?:commits|freeze|checkpoint)\(|'checkpoint')([^;]*)/g);
  return [...calls].some(([, rest = '']) => isWordIn(rest, option));
}

describe('what --help promises is tested', () => {
  test('there are commands to look at', () => {
    expect(COMMAND_FILES.length).toBeGreaterThanOrEqual(12);
  });

  test.each(COMMAND_FILES)('%s: every option by an integration test that runs the command', async (file) => {
    const { help, name } = await loadCommand(file);
    const options = new Set([...help.matchAll(/--([a-z][a-z0-9-]*)/g)].map(([word]) => word));
    // Of every command alike: test/unit/cli/commands.test.ts.
    options.delete('--help');
    const untested = [...options].filter((option) => !integration.some((text) => gives(text, name, option)));
    expect(untested).toEqual([]);
  });

  test('every variable of --help and of the README, by any test', async () => {
    const helps = await Promise.all(COMMAND_FILES.map(async (file) => (await loadCommand(file)).help));
    const readme = readFileSync(join(root, 'README.md'), 'utf8');
    const words = [...helps, readme].flatMap((text) => text.match(/\b(?:FF_[A-Z0-9_]*[A-Z0-9]|CRIU_OPTS)\b/g) ?? []);
    const variables = new Set(words.filter((word) => !PARTS.includes(word)));
    expect(variables.size).toBeGreaterThan(15);
    expect([...variables].filter((name) => !all.some((text) => isWordIn(text, name)))).toEqual([]);
  });
});

/** `FF_S3_*` and such: the beginning of several names. */
const PARTS = ['FF_S3', 'FF_STORE', 'FF_APP', 'FF_APP_INJECT', 'FF_APP_INJECT_NAME'];
