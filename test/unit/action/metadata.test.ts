// SPDX-License-Identifier: Apache-2.0
// action.yml, its documents, the workflows and dist/: each says what the others say.
import { cpSync, existsSync, readFileSync, readdirSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import { NoOperationTraceWriter, convertWorkflowTemplate, parseWorkflow } from '@actions/workflow-parser';
import { beforeAll, describe, expect, test } from '@jest/globals';
import { parse } from 'yaml';
import { CRIU_BUNDLE } from '../../../src/action/criu-bundle.js';
import { readInputs } from '../../../src/action/inputs.js';
import { outcomeOf, outputs } from '../../../src/action/outcome.js';
import { asFastFreezeError } from '../../../src/base/errors.js';
import { blocksIn } from '../../support/document.js';
import { askScript, makeDirectory, runCommand } from '../linux/support.js';

interface Metadata {
  readonly name: string;
  readonly description: string;
  readonly branding: { readonly icon: string; readonly color: string };
  readonly inputs: Readonly<
    Record<string, { readonly description: string; readonly default?: string; readonly required?: boolean }>
  >;
  readonly outputs: Readonly<Record<string, { readonly description: string }>>;
  readonly runs: { readonly using: string; readonly main: string; readonly post: string };
}

const action = parse(readFileSync('action.yml', 'utf8')) as Metadata;
const document = readFileSync('docs/action.md', 'utf8');
const sources = readdirSync('src/action')
  .map((name) => readFileSync(join('src/action', name), 'utf8'))
  .join('\n');

describe('action.yml', () => {
  test('is what the runner takes: node24, files that are there, defaults of the contexts that inputs may use', () => {
    expect(action.runs.using).toBe('node24');
    for (const path of [action.runs.main, action.runs.post]) expect(existsSync(path)).toBe(true);
    expect(action.description.length).toBeLessThanOrEqual(150);
    expect(['white', 'black', 'yellow', 'blue', 'green', 'orange', 'red', 'purple', 'gray-dark']).toContain(
      action.branding.color,
    );
    for (const [name, { default: value = '' }] of Object.entries(action.inputs)) {
      for (const [, expression = ''] of value.matchAll(/\$\{\{\s*(.*?)\s*\}\}/g)) {
        expect([name, expression]).toEqual([
          name,
          expect.stringMatching(/^(?:toJSON\()?(?:github|strategy|matrix|job|runner)\b/),
        ]);
      }
    }
  });

  test('has the inputs that are read, and no others', () => {
    const read = [
      ...sources.matchAll(
        /(?:getInput|getMultilineInput|minutes|moment|durationOr|oneOf|count|truth)\('([a-z0-9-]+)'/g,
      ),
    ].map(([, name]) => name);
    expect([...new Set(read)].sort()).toEqual(Object.keys(action.inputs).sort());
  });

  test('has the outputs that are set, and no others', () => {
    const set = Object.keys(outputs(outcomeOf([], { exitCode: 0, how: 'ended' }), '', ''));
    expect(set.sort()).toEqual(Object.keys(action.outputs).sort());
  });

  test('has no input or output that no story of test/integration names', () => {
    const stories = readFileSync('test/integration/action.test.ts', 'utf8');
    const named = (name: string): boolean => new RegExp(`(?:^|[ {'])${name}'?(?::|[,)])`, 'm').test(stories);
    const missing = [...Object.keys(action.inputs), ...Object.keys(action.outputs)].filter((name) => !named(name));
    // The runner's stand-in gives it to each step.
    expect(missing).toEqual(['job-status']);
  });

  test('and docs/action.md have the same tables', async () => {
    const tables = (await askScript(
      `import { inputTable, outputTable } from ${JSON.stringify(join(process.cwd(), 'scripts/action-docs.mjs'))};
      console.log(JSON.stringify([inputTable(), outputTable()]));`,
      [],
    )) as string[];
    for (const table of tables) expect(document).toContain(table);
  });

  test('asks for a bundle whose sum is one', () => {
    expect(CRIU_BUNDLE.sha256).toMatch(/^(?!0{64})[0-9a-f]{64}$/);
  });
});

test('every message of the troubleshooting table is one that the sources have', () => {
  const all = readdirSync('src', { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => readFileSync(join('src', name), 'utf8'))
    .join('\n');
  const [, table = ''] = document.split('## Troubleshooting');
  const messages = [...table.matchAll(/^\| ([^|]*) \|/gm)].flatMap(([, cell = '']) => [...cell.matchAll(/`([^`]+)`/g)]);
  // As they are put together: an operation, its subject, a reason, numbers.
  const parts = messages.flatMap(([, text = '']) => text.split(/\.\.\.|: |\d+|^cannot /));
  const told = parts.map((part) => part.trim()).filter((part) => part.length > 5);
  expect(told.length).toBeGreaterThan(15);
  expect(told.filter((part) => !all.includes(part) && !all.includes(part.replace("'", "\\'")))).toEqual([]);
});

const WORKFLOWS = ['examples/github', '.github/workflows'].flatMap((folder) =>
  readdirSync(folder).map((name) => join(folder, name)),
);

async function problems(name: string, content: string): Promise<string[]> {
  const { context, value } = parseWorkflow({ name, content }, new NoOperationTraceWriter());
  if (value !== undefined && context.errors.getErrors().length === 0) await convertWorkflowTemplate(context, value);
  return context.errors.getErrors().map(({ message }) => message);
}

interface Step {
  readonly uses?: string;
  readonly with?: Readonly<Record<string, unknown>>;
}

function stepsOf(content: string): Step[] {
  const { jobs } = parse(content) as { readonly jobs: Readonly<Record<string, { readonly steps?: readonly Step[] }>> };
  return Object.values(jobs).flatMap(({ steps = [] }) => steps);
}

/** What the action says of those inputs; an expression is taken for some word. */
function whyRefused(given: Readonly<Record<string, unknown>>): string | undefined {
  const all = Object.entries(action.inputs).map(([name, { default: value = '' }]) => {
    const text = `${(given[name] as string | number | boolean | undefined) ?? value}`.replace(
      /\$\{\{.*?\}\}/g,
      name === 'criu-sha256' ? 'a'.repeat(64) : 'x',
    );
    return [`INPUT_${name.toUpperCase()}`, text] as const;
  });
  const saved = { ...process.env };
  try {
    Object.assign(process.env, Object.fromEntries(all), { GITHUB_WORKSPACE: '/workspace' });
    readInputs();
    return undefined;
  } catch (error) {
    return asFastFreezeError(error, 'read the inputs').message;
  } finally {
    process.env = saved;
  }
}

describe('the workflows', () => {
  test('there are six examples, and three of ours', () => {
    expect(WORKFLOWS).toHaveLength(9);
    for (const path of WORKFLOWS.slice(0, 6)) expect(document).toContain(`\`${basename(path)}\``);
  });

  test.each(WORKFLOWS)('%s is one, and gives the action inputs that there are', async (path) => {
    const content = readFileSync(path, 'utf8');
    expect(await problems(path, content)).toEqual([]);
    const ours = stepsOf(content).filter(({ uses = '' }) => uses === './' || uses.startsWith('fastfreeze/action@'));
    for (const step of ours) {
      const given = Object.keys(step.with ?? {});
      expect(Object.keys(action.inputs)).toEqual(expect.arrayContaining(given));
      expect(given).toContain('run');
      expect(whyRefused(step.with ?? {})).toBeUndefined();
    }
    if (path.startsWith('examples')) expect(ours.length).toBeGreaterThan(0);
    // Rights are given by name; an action of somebody else's in a workflow of ours would have to be pinned.
    expect(content).toMatch(/^permissions:/m);
    if (path.startsWith('.github'))
      expect(stepsOf(content).filter(({ uses = './' }) => uses !== './' && !/@[0-9a-f]{40}$/.test(uses))).toEqual([]);
  });

  test.each(['README.md', 'docs/action.md'])('%s shows one as well', async (path) => {
    const [content = ''] = blocksIn(path, 'yaml');
    expect(await problems(path, content)).toEqual([]);
    const inputs = stepsOf(content).flatMap(({ with: given = {}, uses = '' }) =>
      uses.startsWith('fastfreeze/action@') ? Object.keys(given) : [],
    );
    expect(inputs).toContain('run');
    expect(Object.keys(action.inputs)).toEqual(expect.arrayContaining(inputs));
  });

  test('a mistake in one would be seen', async () => {
    expect(whyRefused({ run: 'true', 'on-checkpoint': 'redispatched' })).toMatch(/there is no such choice/);
    const content = readFileSync('examples/github/redispatch.yml', 'utf8');
    expect(await problems('x', content.replace('runs-on:', 'run-on:'))).not.toEqual([]);
    expect(await problems('x', content.replace('actions: write', 'action: write'))).not.toEqual([]);
    expect(
      await problems('x', content.replace('secrets.FASTFREEZE_PASSPHRASE }}', 'secrets.FASTFREEZE_PASSPHRASE')),
    ).not.toEqual([]);
  });
});

/** GitHub fetches the repository's archive at the start of each job that uses the action. */
const MOST_DIST_BYTES = 12 * 1_048_576;

/** esbuild's account: what of which file is in each of the bundles. */
interface Account {
  readonly outputs: Readonly<Record<string, { readonly inputs: Readonly<Record<string, { bytesInOutput: number }>> }>>;
}

/** Folders of npm packages, for files in them. */
function packagesOf(paths: readonly string[]): string[] {
  const folders = paths.map((path) => /^(?:.*\/)?node_modules\/(?:@[^/]+\/)?[^/]+(?=\/)/.exec(path)?.[0]);
  return [...new Set(folders.filter((folder) => folder !== undefined))].sort();
}

/** Those that a file of licences does not name with their version, or gives no text of. */
function withoutLicence(folders: readonly string[], text: string): string[] {
  const [, ...sections] = text.split(`\n${'-'.repeat(80)}\n`);
  return folders.filter((folder) => {
    const { name, version } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as Record<string, string>;
    const found = sections.find((section) => section.startsWith(`${name} ${version} (`));
    return found === undefined || found.trim().split('\n').length < 3;
  });
}

describe('dist/', () => {
  const directory = makeDirectory();
  const [fresh, account] = [join(directory, 'dist'), join(directory, 'account.json')];

  beforeAll(async () => {
    await askScript(
      `[process.argv[2], process.argv[3]] = ${JSON.stringify([fresh, account])};
      await import(${JSON.stringify(join(process.cwd(), 'scripts/build-action.mjs'))});
      console.log('1');`,
      [],
      { timeoutMs: 50_000 },
    );
  }, 60_000);

  test('is what the sources build, byte by byte', async () => {
    const names = filesBelow(fresh);
    // `npm run build:action` makes it anew.
    expect(filesBelow('dist')).toEqual(names);
    // What .gitignore hides is there, but is not committed.
    expect(await runCommand(['git', 'ls-files', '--others', '--ignored', '--exclude-standard', 'dist'])).toMatchObject({
      code: 0,
      stdout: '',
    });
    expect(names.filter((name) => !readFileSync(join('dist', name)).equals(readFileSync(join(fresh, name))))).toEqual(
      [],
    );
  });

  test('names the licence of every package that is in it', () => {
    const { outputs } = JSON.parse(readFileSync(account, 'utf8')) as Account;
    const inputs = Object.values(outputs).flatMap((one) => Object.entries(one.inputs));
    const packages = packagesOf(inputs.flatMap(([path, { bytesInOutput }]) => (bytesInOutput > 0 ? [path] : [])));
    expect(packages).toEqual(expect.arrayContaining(['node_modules/@actions/cache', 'node_modules/koffi']));
    expect(packages.length).toBeGreaterThan(60);
    expect(withoutLicence(packages, readFileSync('dist/licenses.txt', 'utf8'))).toEqual([]);
  });

  test('refuses a machine that cannot freeze, without loading what would not load there', async () => {
    const copy = join(directory, 'elsewhere');
    cpSync('dist', copy, { recursive: true, filter: (path) => !path.endsWith('.node') });
    const machine = `data:text/javascript,Object.defineProperty(process,'arch',{value:'arm64'})`;
    const run = (name: string): ReturnType<typeof runCommand> =>
      runCommand([process.execPath, '--import', machine, join(copy, 'lib/action', name)]);
    const main = await run('main.js');
    expect(main.stdout).toMatch(
      /^::error title=fastfreeze::cannot run on linux-arm64: only Linux on x64 can be frozen\./m,
    );
    expect(main).toMatchObject({ code: 170, stderr: '' });
    expect(await run('post.js')).toMatchObject({ code: 0, stdout: '', stderr: '' });
  });

  test('is small, has its licences, and names no place of the machine that built it', () => {
    const names = filesBelow('dist');
    const sizes = names.map((name) => statSync(join('dist', name)).size);
    expect(sizes.reduce((sum, size) => sum + size, 0)).toBeLessThan(MOST_DIST_BYTES);
    const licences = readFileSync('dist/licenses.txt', 'utf8');
    for (const name of ['koffi', '@actions/core', '@aws-sdk/client-s3', '@google-cloud/storage'])
      expect(licences).toContain(`\n${name} `);
    for (const name of names.filter((one) => one.endsWith('.js')))
      expect(readFileSync(join('dist', name), 'utf8')).not.toContain(process.cwd());
  });
});

test('lib/ names the licence of every package that its bundles are made of', () => {
  const bundles = ['store/s3', 'store/gs', 'store/cache', 'batch'].map((folder) =>
    readFileSync(join('lib', folder, 'sdk.js'), 'utf8'),
  );
  // esbuild says above each file where it is from.
  const files = bundles.flatMap((text) =>
    [...text.matchAll(/^ *\/\/ (node_modules\/\S+)$/gm)].map(([, path = '']) => path),
  );
  const packages = packagesOf(files);
  expect(packages).toEqual(expect.arrayContaining(['node_modules/@actions/cache', 'node_modules/@azure/storage-blob']));
  expect(packages.length).toBeGreaterThan(60);
  expect(withoutLicence(packages, readFileSync('lib/licenses.txt', 'utf8'))).toEqual([]);
});

function filesBelow(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => statSync(join(folder, name)).isFile())
    .sort();
}
