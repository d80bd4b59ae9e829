// SPDX-License-Identifier: Apache-2.0
// Lays the self-contained package out in the folder that is named: our code, its npm packages, this Node.js, unshare, and a private CRIU with
// all its libraries. Nothing is fetched except a CRIU where none was installed yet. scripts/package.sh makes the archive of it.
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
import { defaultHome } from '../lib/criu/runtime/layout.js';
import { isPrivileged } from '../lib/criu/runtime/privilege.js';
import { isNeeded, licenceFiles, productionPackages } from './package-modules.mjs';

const target = resolve(process.argv[2] ?? die('the folder to make is missing'));
if (existsSync(target)) die(`${target} exists already`);
const licences = join(target, 'licenses');
const tools = join(target, 'tools');
for (const folder of [licences, join(tools, 'lib')]) mkdirSync(folder, { recursive: true });

/** Lines of licenses/README. */
const notices = ['What this package holds, and under which licence', '', 'fastfreeze: Apache-2.0, text: LICENSE'];
addOurCode();
const librariesOfCriu = await addCriu();
addNode();
addUnshare();
addModules();
writeFileSync(join(licences, 'README'), `${notices.join('\n')}\n`);
tryIt();

function addOurCode() {
  const linked = ['docs', 'docker', 'examples', 'batch-adapters'];
  for (const path of ['bin', 'lib', 'runtime', ...linked, 'package.json', 'README.md', 'CHANGELOG.md', 'LICENSE']) {
    cpSync(path, join(target, path), { recursive: true, filter: (from) => !isLeftOut(from) });
  }
}

/** A mark of the build, and the package that was extracted where its Docker image is built. */
function isLeftOut(path) {
  return basename(path) === '.built' || path === join('docker', 'fastfreeze');
}

/** Copies the runtime as it is; resolves to the names of its libraries. */
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
  notices.push(
    `CRIU ${packages.criuVersion} and its libraries, Debian packages: criu/root/LICENSES lists them and their texts`,
  );
  return new Set(readdirSync(runtime.libraryDir));
}

function addNode() {
  const shared = Object.entries(process.config.variables).find(([name, value]) => /^node_shared/.test(name) && value);
  if (shared !== undefined) {
    die(`${process.execPath} needs files of its distribution (${shared[0]}): use Node.js as nodejs.org builds it`);
  }
  execFileSync('strip', ['--strip-unneeded', '-o', join(tools, 'node'), process.execPath]);
  copyFileSync(licenceOfNode(), join(licences, 'node'));
  notices.push(`Node.js ${process.version}, without its symbols for debuggers: text: licenses/node`);
  addLibraries(process.execPath);
}

/** An archive of Node.js has its licence beside bin/, a package in the folder of documents. */
function licenceOfNode() {
  const prefix = dirname(dirname(process.execPath));
  const given = process.env.FF_NODE_LICENSE;
  const usual = ['LICENSE', 'share/doc/nodejs/LICENSE', 'share/doc/nodejs/copyright'].map((name) => join(prefix, name));
  const places = given === undefined ? usual : [given];
  const found = places.find((path) => existsSync(path) && readFileSync(path, 'utf8').includes('Node.js'));
  return found ?? die(`no licence of Node.js in ${places.join(', ')}: name its file with FF_NODE_LICENSE`);
}

/** Containers may have none, or an old one. */
function addUnshare() {
  const path = run('sh', '-c', 'command -v unshare').trim();
  copyFileSync(realpathSync(path), join(tools, 'unshare'));
  addLicence(path, 'unshare');
  addLibraries(path);
}

/** What a program is linked with and CRIU has not brought already. All run on CRIU's C library, which is newer than this machine's. */
function addLibraries(program) {
  for (const [, name, path] of run('ldd', program).matchAll(/^\s*(\S+) => (\/\S+)/gm)) {
    const copy = join(tools, 'lib', name);
    if (librariesOfCriu.has(name) || existsSync(copy)) continue;
    copyFileSync(realpathSync(path), copy);
    chmodSync(copy, 0o644);
    addLicence(path, name);
  }
}

/** The licence of a file of a Debian package. */
function addLicence(path, name) {
  const owner = run('dpkg-query', '--search', realpathSync(path)).split(':')[0];
  const version = run('dpkg-query', '--show', '--showformat', '${Version}', owner);
  copyFileSync(join('/usr/share/doc', owner, 'copyright'), join(licences, name));
  notices.push(`${name}, of Debian's package ${owner} ${version}: text: licenses/${name}`);
}

function addModules() {
  notices.push('', 'npm packages that lib/store/*/sdk.js and lib/batch/sdk.js are made of: text: lib/licenses.txt');
  notices.push('', 'npm packages (files that are not loaded left out):', '');
  for (const path of productionPackages()) {
    cpSync(path, join(target, path), { recursive: true, filter: (from) => isNeeded(from) });
    const { name, version, license } = JSON.parse(readFileSync(join(path, 'package.json'), 'utf8'));
    const texts = licenceFiles(path).map((file) => join(path, file));
    notices.push(`${name} ${version}: ${license}, text: ${texts.join(', ') || 'it has none'}`);
  }
}

/** What is missing shows here, and not at those who use it. */
function tryIt() {
  const environment = { encoding: 'utf8', env: { PATH: '/usr/bin:/bin' } };
  const said = execFileSync(join(target, 'bin/fastfreeze'), ['--version'], environment);
  if (!said.startsWith('fastfreeze ')) die(`fastfreeze --version said: ${said}`);
  const criu = join(target, 'criu/root/usr/lib/x86_64-linux-gnu');
  const byLoader = (tool, ...words) => {
    const all = ['--library-path', `${criu}:${join(tools, 'lib')}`, join(tools, tool), ...words];
    execFileSync(join(criu, 'ld-linux-x86-64.so.2'), all, { ...environment, cwd: target });
  };
  byLoader('unshare', '--version');
  const { dependencies } = JSON.parse(readFileSync('package.json', 'utf8'));
  const script = `await Promise.all(${JSON.stringify(Object.keys(dependencies))}.map((name) => import(name)))`;
  byLoader('node', '--input-type=module', '--eval', script);
}

function run(program, ...args) {
  return execFileSync(program, args, { encoding: 'utf8' });
}

function say(message) {
  process.stderr.write(`package: ${message}\n`);
}

function die(message) {
  say(message);
  process.exit(1);
}
