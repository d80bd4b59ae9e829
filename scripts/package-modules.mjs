// SPDX-License-Identifier: Apache-2.0
// Which npm packages, and which of their files, are loaded at run time.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { basename, dirname, extname } from 'node:path';

/** What `npm install --omit=dev` would have installed, out of the lock file, without packages of types. */
export function productionPackages() {
  const { packages } = JSON.parse(readFileSync('package-lock.json', 'utf8'));
  return Object.entries(packages)
    .filter(([path, { dev, devOptional }]) => path !== '' && dev !== true && devOptional !== true)
    .map(([path]) => path)
    .filter((path) => !/(?:^|\/)(?:@types\/|undici-types$)/.test(path) && existsSync(path))
    .sort();
}

/** Whether a file or folder below node_modules is copied. A test holds that every `require` and `import` of what stays finds its file. */
export function isNeeded(path) {
  if (UNNEEDED.some((pattern) => pattern.test(path))) return false;
  const name = basename(path);
  if (extname(name) !== '.md') return true;
  // Some tell their licence in their README only.
  return licenceFiles(dirname(path)).includes(name);
}

/** The files of a package that hold its licence, its README where there is no other. */
export function licenceFiles(folder) {
  const names = readdirSync(folder);
  const found = names.filter(isLicence);
  return found.length > 0 ? found : names.filter((name) => /^readme\.md$/i.test(name));
}

function isLicence(name) {
  return /^(?:licen[cs]e|copying|notice)/i.test(name);
}

const UNNEEDED = [
  // Types, maps, sources of what was compiled.
  /\.(?:ts|mts|cts|map|flow|tsbuildinfo)$/,
  // Node.js takes dist-cjs of the AWS SDK, whoever asks.
  /\/dist-(?:es|types)$/,
  // Bundles for browsers.
  /\.min\.js$/,
  /\.browser\.js$/,
  // koffi: the sources of its native part, and its binaries for other C libraries and machines.
  /\.(?:cc|hh|c|h|inc|S|asm|def)$/,
  /node_modules\/koffi\/(?:vendor|doc|lib|cnoke\.cjs)$/,
  /\/@koromix\/(?!koffi-linux-x64\b)[^/]+$/,
  /\/musl_x64$/,
  /\/(?:test|tests|__tests__|example|examples|docs|benchmark|\.github)$/,
  /\/(?:\.[^/]+rc(?:\.\w+)?|\.npmignore|\.travis\.yml|\.editorconfig|\.gitattributes|Makefile|bower\.json|component\.json|tsconfig\.json|eslint\.config\.\w+)$/,
];
