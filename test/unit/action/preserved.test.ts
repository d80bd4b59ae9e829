// SPDX-License-Identifier: Apache-2.0
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { expect, test } from '@jest/globals';
import { credentialsIn, jobCredentials } from '../../../src/action/preserved.js';
import { makeDirectory } from '../linux/support.js';

const HEADER = '[http "https://github.com/"]\n\textraheader = AUTHORIZATION: basic eDp5\n';

function workspaceWith(files: Readonly<Record<string, string>>): string {
  const workspace = makeDirectory();
  for (const [name, content] of Object.entries({ 'source/main.c': '', ...files })) {
    const path = join(workspace, name);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, content);
  }
  return workspace;
}

test('what google-github-actions/auth leaves for a job is left out, wherever a preserved path has it in it', () => {
  const workspace = workspaceWith({ 'gha-creds-0a1b.json': '{}', 'creds.json': '{}', 'source/gha-creds.json': '{}' });
  const env = { GITHUB_WORKSPACE: workspace };
  const creds = join(workspace, 'gha-creds-0a1b.json');
  const left = (...preservePaths: string[]): string[] => jobCredentials({ preservePaths, preserveExcept: [] }, env);
  expect(left(workspace)).toEqual([creds]);
  expect(left(dirname(workspace))).toEqual([creds]);
  expect(left(join(workspace, 'source'), join(workspace, 'missing'))).toEqual([]);
  // By its name: whoever preserves that very file wants it.
  expect(left(creds)).toEqual([]);
  expect(credentialsIn({ preservePaths: [workspace], preserveExcept: [] }, env)).toEqual([]);
});

test('other credentials that would travel are named, with what they are and what to do', () => {
  const workspace = workspaceWith({
    '.git/config': HEADER,
    '.npmrc': '//registry.example/:_authToken=npm_abc\n',
    '.docker/config.json': '{ "auths": { "ghcr.io": { "auth": "eDp5" } } }',
    'creds.json': '{}',
  });
  const at = (name: string): string => join(workspace, name);
  const env = { GITHUB_WORKSPACE: workspace, HOME: workspace, GOOGLE_APPLICATION_CREDENTIALS: at('creds.json') };
  const found = (preservePaths: string[], preserveExcept: string[] = []): string[] =>
    credentialsIn({ preservePaths, preserveExcept }, env).map(({ path }) => path);
  const all = ['.git/config', '.npmrc', '.docker/config.json', 'creds.json'].map(at);
  expect(found([workspace])).toEqual(all);
  expect(found([dirname(workspace)])).toEqual(all);
  expect(found([workspace], [at('.git'), at('.npmrc')])).toEqual(all.slice(2));
  expect(found([at('source')])).toEqual([]);
  expect(credentialsIn({ preservePaths: [workspace], preserveExcept: [] }, env)[0]).toMatchObject({
    what: "the job's token",
    remedy: `persist-credentials: false of actions/checkout; or preserve-except: ${at('.git/config')}`,
  });
});

test('files of that kind without a secret in them are not', () => {
  const workspace = workspaceWith({
    '.git/config': '[core]\n\tbare = false\n',
    '.npmrc': '//registry.example/:_authToken=${NODE_AUTH_TOKEN}\nregistry=https://registry.example/\n',
    '.docker/config.json': '{ "auths": {}, "credsStore": "desktop" }',
  });
  const env = { GITHUB_WORKSPACE: workspace, HOME: workspace };
  expect(credentialsIn({ preservePaths: [workspace], preserveExcept: [] }, env)).toEqual([]);
});
