// SPDX-License-Identifier: Apache-2.0
// Lays the self-contained package out in the folder that is named: our code, its npm packages, this Node.js, and a private CRIU with all its
// libraries. Nothing is fetched except a CRIU where none was installed yet. scripts/package.sh makes the archive of it.
import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
} from 'node:fs';
import { writeFileSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { installRuntime } from '../lib/criu/runtime/install-runtime.js';
import { CODEC_LIBRARIES, defaultHome } from '../lib/criu/runtime/layout.js';
import { isPrivileged } from '../lib/criu/runtime/privilege.js';
import { isNeeded, licenceFiles, productionPackages } from './package-modules.mjs';

const target = resolve(process.argv[2] ?? die('the folder to make is missing'));
if (existsSync(target)) die(`${target} exists already`);
mkdirSync(target, { recursive: true });
addOurCode();
const modules = addModules();
const runtime = await addCriu();
const { nodeLicence, libraries } = addNode();
addLicences();
tryIt();

function addOurCode() {
  for (const path of ['bin', 'lib', 'runtime', 'docs', 'package.json', 'README.md', 'CHANGELOG.md', 'LICENSE']) {
    cpSync(path, join(target, path), { recursive: true, filter: (from) => basename(from) !== '.built' });
  }
}

function addModules() {
  const packages = productionPackages();
  for (const path of packages) {
    cpSync(path, join(target, path), { recursive: true, filter: (from) => isNeeded(from) });
  }
  return packages;
}

async function addCriu() {
  const { runtime, packages, tested } = await installRuntime({
    home: defaultHome(process.env),
    env: process.env,
    privileged: isPrivileged(),
    force: false,
    // The machine that makes packages need not be one that can freeze.
    skipCheck: true,
    onStep: say,
  });
  if (!tested.tested) say(`note: not the tested set of Debian packages: ${tested.differences.join(', ')}`);
  cpSync(runtime.root, join(target, 'criu/root'), { recursive: true, verbatimSymlinks: true });
  return { ...runtime, packages: packages.packages };
}

/** Node.js with the libraries that CRIU has not brought already. All run on CRIU's C library, which is newer than the machine's. */
function addNode() {
  const shared = Object.entries(process.config.variables).filter(([name, value]) => /^node_shared/.test(name) && value);
  if (shared.length > 0) {
    die(
      `${process.execPath} needs libraries of its distribution (${shared[0][0]}): use Node.js as nodejs.org builds it`,
    );
  }
  const folder = join(target, 'node');
  mkdirSync(join(folder, 'lib'), { recursive: true });
  execFileSync('strip', ['--strip-unneeded', '-o', join(folder, 'node'), process.execPath]);
  const own = new Set(readdirSync(runtime.libraryDir));
  for (const name of CODEC_LIBRARIES) if (!own.has(name)) die(`${runtime.root} has no ${name}`);
  const libraries = [];
  for (const [, name, path] of run('ldd', process.execPath).matchAll(/^\s*(\S+) => (\/\S+)/gm)) {
    if (own.has(name)) continue;
    copyFileSync(realpathSync(path), join(folder, 'lib', name));
    chmodSync(join(folder, 'lib', name), 0o644);
    libraries.push({ name, licence: licenceOfLibrary(path) });
  }
  return { nodeLicence: licenceOfNode(), libraries };
}

/** An archive of Node.js has its licence beside bin/, a package in the folder of documents. */
function licenceOfNode() {
  const prefix = dirname(dirname(process.execPath));
  const places = [
    ...(process.env.FF_NODE_LICENSE === undefined ? [] : [process.env.FF_NODE_LICENSE]),
    ...['LICENSE', 'share/doc/nodejs/LICENSE', 'share/doc/nodejs/copyright'].map((name) => join(prefix, name)),
  ];
  const found = places.find((path) => existsSync(path) && readFileSync(path, 'utf8').includes('Node.js'));
  return found ?? die(`no licence of Node.js in ${places.join(', ')}: name it with FF_NODE_LICENSE`);
}

function licenceOfLibrary(path) {
  const owner = run('dpkg-query', '--search', realpathSync(path)).split(':')[0];
  return join('/usr/share/doc', owner, 'copyright');
}

function addLicences() {
  const folder = join(target, 'licenses');
  mkdirSync(folder);
  copyFileSync(nodeLicence, join(folder, 'node'));
  const lines = [
    'What this package holds, and under which licence',
    '',
    'fastfreeze: Apache-2.0, text: LICENSE',
    `Node.js ${process.version}, without its symbols for debuggers: text: licenses/node`,
    `CRIU and its libraries, Debian packages: list, and where each text is: criu/root/LICENSES`,
  ];
  for (const { name, licence } of libraries) {
    copyFileSync(licence, join(folder, name));
    lines.push(`${name}: GPL-3.0 with the GCC Runtime Library Exception, text: licenses/${name}`);
  }
  lines.push('', 'npm packages (files that are not loaded left out):', '');
  for (const path of modules) {
    const { name, version, license } = JSON.parse(readFileSync(join(path, 'package.json'), 'utf8'));
    const texts = licenceFiles(path).map((file) => join(path, file));
    lines.push(`${name} ${version}: ${license}, text: ${texts.join(', ') || 'none of its own'}`);
  }
  writeFileSync(join(folder, 'README'), `${lines.join('\n')}\n`);
}

/** Whatever is missing shows here, not at those who use it. */
function tryIt() {
  const bin = join(target, 'bin/fastfreeze');
  const said = execFileSync(bin, ['--version'], { encoding: 'utf8', env: { PATH: '/usr/bin:/bin' } });
  if (!said.startsWith('fastfreeze ')) die(`${bin} --version said: ${said}`);
  const node = join(target, 'node/node');
  const loader = [join(runtime.libraryDir, 'ld-linux-x86-64.so.2'), '--library-path'];
  const folders = [join(target, 'criu/root/usr/lib/x86_64-linux-gnu'), join(target, 'node/lib')].join(':');
  const names = Object.keys(JSON.parse(readFileSync('package.json', 'utf8')).dependencies);
  const script = `await Promise.all(${JSON.stringify(names)}.map((name) => import(name)))`;
  const words = [...loader, folders, node, '--input-type=module', '--eval', script];
  execFileSync(words[0], words.slice(1), { cwd: target });
}

function run(...[program, ...args]) {
  return execFileSync(program, args, { encoding: 'utf8' });
}

function say(message) {
  process.stderr.write(`package: ${message}\n`);
}

function die(message) {
  say(message);
  process.exit(1);
}
