// SPDX-License-Identifier: Apache-2.0
// Every option of --help and every variable that is documented is named by a test of what it does.
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from '@jest/globals';
import ts from 'typescript';
import type { Command } from '../../../src/cli/command.js';

const root = fileURLToPath(new URL('../../../../', import.meta.url));
const COMMAND_FILES = readdirSync(join(root, 'src/cli')).filter((name) =>
  /^export const \w+Command: Command/m.test(readFileSync(join(root, 'src/cli', name), 'utf8')),
);

const suites = readdirSync(join(root, 'test/integration')).map((name) => join(root, 'test/integration', name));
const tests = suites.flatMap(testsIn);

/** The text of each test in a suite, and after it that of the suite's own functions and constants which it names. */
function testsIn(path: string): string[] {
  const source = ts.createSourceFile(path, readFileSync(path, 'utf8'), ts.ScriptTarget.Latest, true);
  const found: string[] = [];
  const shared: [name: string, text: string][] = [];
  const visit = (node: ts.Node): void => {
    if (isTest(node)) found.push(node.getText());
    else if (ts.isFunctionDeclaration(node) && node.name !== undefined && !holdsTests(node))
      shared.push([node.name.text, node.getText()]);
    else if (ts.isVariableDeclaration(node) && !holdsTests(node)) shared.push([node.name.getText(), node.getText()]);
    else ts.forEachChild(node, visit);
  };
  visit(source);
  return found.map((text) =>
    [text, ...shared.filter(([name]) => isWordIn(text, name)).map(([, one]) => one)].join('\n'),
  );
}

/** `test(...)`, `it(...)`, `test.each(...)(...)`, and the stories of a suite that makes one test of each. */
function isTest(node: ts.Node): boolean {
  if (ts.isPropertyAssignment(node)) return ts.isStringLiteral(node.name) && ts.isArrowFunction(node.initializer);
  return ts.isCallExpression(node) && /^(?:test|it)(?:\.each\([^]*\))?$/.test(node.expression.getText());
}

function holdsTests(node: ts.Node): boolean {
  return isTest(node) || (ts.forEachChild(node, holdsTests) ?? false);
}

async function loadCommand(file: string): Promise<Command> {
  const module = (await import(`../../../src/cli/${file.replace(/\.ts$/, '.js')}`)) as Record<string, Command>;
  const found = Object.entries(module).find(([name]) => name.endsWith('Command'))?.[1];
  if (found === undefined) throw new Error(`${file} has no command`);
  return found;
}

function isWordIn(text: string, word: string): boolean {
  return new RegExp(`(?<![\\w-])${word.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')}(?![\\w-])`).test(text);
}

/** How tests call a command, where it is not by its name: `run` and `checkpoint` have helpers, `ff_daemon` is another name. */
const CALLS: Readonly<Record<string, RegExp>> = {
  run: /\brun\(|\bstart\(|'run'|\b(?:fastfreeze|freezer) (?:run|start)\b/,
  checkpoint: /\b(?:commits|freeze|checkpoint)\(|'checkpoint'/,
  daemon: /\bdaemon\(|'daemon'|ffDaemon\(/,
  batch: /'batch'|\bbatch run\b|\bexplain\(/,
};

/** Whether a test calls this command, and names this option. */
function gives(text: string, command: string, option: string): boolean {
  if (!isWordIn(text, option)) return false;
  const call = CALLS[command] ?? new RegExp(`'${command}'|\\b${command}\\(`);
  if (command !== 'checkpoint') return call.test(text);
  // One that is of `run` too must be in the call itself.
  return text
    .split(new RegExp(`(?=${call.source})`))
    .some((part) => call.test(part) && isWordIn(part.split(';')[0] ?? '', option));
}

const optionsOf = (help: string): string[] => [
  ...new Set([
    ...[...help.matchAll(/(?<![\w-])--[a-z][a-z0-9-]*/g)].map(([word]) => word),
    ...[...help.matchAll(/^ +(-[a-z]), --/gm)].map(([, word = '']) => word),
  ]),
];

describe('what --help promises is tested', () => {
  test('there are commands and tests to look at', () => {
    expect(COMMAND_FILES.length).toBeGreaterThanOrEqual(12);
    expect(tests.length).toBeGreaterThan(200);
  });

  test.each(COMMAND_FILES)('%s: every option by an integration test that runs the command', async (file) => {
    const { help, name } = await loadCommand(file);
    // Of every command alike: test/unit/cli/commands.test.ts.
    const options = optionsOf(help).filter((option) => option !== '--help' && option !== '-h');
    const untested = options.filter((option) => !tests.some((text) => gives(text, name, option)));
    expect(untested).toEqual([]);
  });

  test('every variable of --help and of the README, by an integration test', async () => {
    const helps = await Promise.all(COMMAND_FILES.map(async (file) => (await loadCommand(file)).help));
    const readme = readFileSync(join(root, 'README.md'), 'utf8');
    const words = [
      ...helps.flatMap(
        (text) => text.match(/\b(?:(?:FF|FASTFREEZE|AWS|GCE)_[A-Z0-9_]*[A-Z0-9]|CRIU_OPTS|\w+_CMD)\b/g) ?? [],
      ),
      ...(readme.match(/\b(?:(?:FF|FASTFREEZE)_[A-Z0-9_]*[A-Z0-9]|CRIU_OPTS|\w+_CMD|\w+_METADATA_\w+)\b/g) ?? []),
    ];
    const variables = new Set(words.filter((word) => !PARTS.includes(word)));
    expect(variables.size).toBeGreaterThan(30);
    expect([...variables].filter((name) => !tests.some((text) => isWordIn(text, name)))).toEqual([]);
  });
});

/** `FF_S3_*` and such: the beginning of several names. */
const PARTS = ['FF_S3', 'FF_STORE', 'FF_APP', 'FF_APP_INJECT', 'FF_APP_INJECT_NAME'];

/** What the README of FastFreeze has, and what its program has in addition; `--app-name` is `--container` there. */
const FASTFREEZE: Readonly<Record<string, readonly string[]>> = {
  run: [
    ...[
      '-i',
      '--image-url',
      '-n',
      '--container',
      '--no-container',
      '--on-app-ready',
      '--no-restore',
      '--leave-stopped',
    ],
    ...['--allow-bad-image-version', '--passphrase-file', '--preserve-path', '--tcp-listen-remap', '-v', '--verbose'],
    ...['CRIU_OPTS', 'FF_APP_PATH', 'FF_APP_LD_LIBRARY_PATH', 'FF_APP_INJECT_', 'FF_APP_VIRT_CPUID_MASK'],
    ...['FF_METRICS_RECORDER', 'S3_CMD', 'GS_CMD'],
  ],
  checkpoint: [
    ...['-i', '--image-url', '--preserve-path', '--leave-running', '--num-shards', '--cpu-budget', '--passphrase-file'],
    ...['-v', '--verbose', 'CRIU_OPTS', 'S3_CMD', 'GS_CMD'],
  ],
  extract: ['-o', '--output-dir', '--allow-bad-image-version', '--passphrase-file', '-v', '--verbose'],
  wait: ['-t', '--timeout', '-v', '--verbose'],
  install: ['--force', '-v', '--verbose'],
  daemon: ['-e', '-d', '-k'],
};

test.each(Object.entries(FASTFREEZE))(
  'nothing that FastFreeze gives to %s is missing from --help',
  async (name, words) => {
    const { help } = await loadCommand(`${name}.ts`);
    expect(words.filter((word) => !new RegExp(`(?<![\\w-])${word}`).test(help))).toEqual([]);
  },
);
