// SPDX-License-Identifier: Apache-2.0
// examples/kubernetes/job.yaml: what Kubernetes would refuse or overlook, and what our own documents would not know.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import type { Job } from 'kubernetes-types/batch/v1.js';
import ts from 'typescript';
import { parse } from 'yaml';
import { blocksIn } from '../../support/document.js';

const text = readFileSync('examples/kubernetes/job.yaml', 'utf8');
const job = parse(text) as Job;
const container = job.spec?.template.spec?.containers[0];

describe('the example for Kubernetes', () => {
  test('has the fields that a Job has, and no others', () => {
    expect(problems(job)).toEqual([]);
  });

  test.each([
    ['preStop:', 'prestop:', /"prestop"' does not exist/],
    ['terminationGracePeriodSeconds: 300', "terminationGracePeriodSeconds: '300'", /'string' is not assignable/],
    ['containerName: job', 'container: job', /"container"' does not exist/],
    ['seccompProfile:', 'seccomp:', /"seccomp"' does not exist/],
  ])('a mistake is found: %s as %s', (right, wrong, complaint) => {
    expect(text).toContain(right);
    expect(problems(parse(text.replace(right, wrong))).join('\n')).toMatch(complaint);
  });

  test('what docs/batch.md shows of one has fields that there are as well', () => {
    const shown = blocksIn('docs/batch.md', 'yaml').map((block) => parse(block) as Job);
    expect(shown.map(({ spec }) => spec?.podFailurePolicy?.rules.length)).toEqual([2]);
    expect(shown.flatMap(problems)).toEqual([]);
  });

  test('tells exit codes apart as docs/exit-codes.md has them', () => {
    const documented = readFileSync('docs/exit-codes.md', 'utf8');
    const rules = job.spec?.podFailurePolicy?.rules ?? [];
    const names = job.spec?.template.spec?.containers.map(({ name }) => name);
    const byAction = rules.flatMap(({ action, onExitCodes }) => {
      if (onExitCodes === undefined) return [];
      expect(names).toContain(onExitCodes.containerName);
      return onExitCodes.values.map((code) => [code, action]);
    });
    expect(byAction).toEqual([
      [2, 'FailJob'],
      [171, 'FailJob'],
      [137, 'Count'],
      [170, 'Count'],
    ]);
    for (const [code = ''] of byAction)
      expect(documented).toMatch(new RegExp(`^\\| ${code} \\| (?:.run.|all) \\|`, 'm'));
    // Kubernetes refuses such a policy otherwise.
    expect(job.spec?.template.spec?.restartPolicy).toBe('Never');
  });

  test('gives the rights of a set that works, as the table of docker/README.md has it', () => {
    const { capabilities, seccompProfile, allowPrivilegeEscalation } = container?.securityContext ?? {};
    const options = [
      ...(capabilities?.drop ?? []).map((name) => `--cap-drop ${name}`),
      ...(capabilities?.add ?? []).map((name) => `--cap-add ${name}`),
      ...(seccompProfile?.type === 'Unconfined' ? ['--security-opt seccomp=unconfined'] : []),
      ...(allowPrivilegeEscalation === false ? ['--security-opt no-new-privileges'] : []),
    ].join(' ');
    expect(readFileSync('docker/README.md', 'utf8')).toContain(`| \`${options}\` | works`);
  });

  test('says to the image what the image knows', () => {
    const freezer = readFileSync('docker/freezer', 'utf8');
    const [command = '', ...words] = container?.args ?? [];
    const hook = container?.lifecycle?.preStop?.exec?.command ?? [];
    expect(hook).toEqual(['freezer', 'freeze']);
    for (const name of [command, hook[1] ?? ''])
      expect(freezer).toMatch(new RegExp(`^  (?:${name}|${name} \\| \\w+)\\)`, 'm'));
    const help = readFileSync('src/cli/run.ts', 'utf8');
    const options = words.slice(0, words.indexOf('solve')).filter((word) => word.startsWith('--'));
    expect(options.length).toBeGreaterThan(0);
    for (const option of options) expect(help).toMatch(new RegExp(`^ +${option} `, 'm'));
    expect((container?.env ?? []).map(({ name }) => name)).toContain('S3');
  });
});

/** What the compiler says of it as a Job: types made of Kubernetes' own schema, which literals must not go beyond. */
function problems(value: unknown): string[] {
  const path = join(process.cwd(), 'job-literal.ts');
  const source = `import type { Job } from 'kubernetes-types/batch/v1.js';\nexport const job: Job = ${JSON.stringify(value)};\n`;
  const options: ts.CompilerOptions = {
    strict: true,
    noEmit: true,
    skipLibCheck: true,
    lib: ['lib.es5.d.ts'],
    types: [],
    target: ts.ScriptTarget.ES2022,
    module: ts.ModuleKind.NodeNext,
  };
  const host = ts.createCompilerHost(options);
  const readSource = host.getSourceFile.bind(host);
  host.getSourceFile = (name, version, ...rest) =>
    name === path
      ? ts.createSourceFile(name, source, version)
      : remembered(name, () => readSource(name, version, ...rest));
  const exists = host.fileExists.bind(host);
  host.fileExists = (name) => name === path || exists(name);
  const program = ts.createProgram([path], options, host);
  return ts.getPreEmitDiagnostics(program).map(({ messageText }) => ts.flattenDiagnosticMessageText(messageText, '\n'));
}

const parsed = new Map<string, ts.SourceFile | undefined>();

/** Kubernetes' types are large; they are read once. */
function remembered(name: string, read: () => ts.SourceFile | undefined): ts.SourceFile | undefined {
  if (!parsed.has(name)) parsed.set(name, read());
  return parsed.get(name);
}
