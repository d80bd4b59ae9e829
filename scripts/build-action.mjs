// SPDX-License-Identifier: Apache-2.0
// Makes dist/: all that the Action runs, out of the sources, without node_modules beside it. The same sources and lock file give the same bytes.
// esbuild, not ncc: there are eight entries (the step, its post step, the engine and the programs that it starts), and each is to load only what
// it needs, the clouds' SDKs only when they are used. ncc makes one bundle of each entry, with all of the SDKs in every one.
// Usage: build-action.mjs [FOLDER=dist] [METAFILE], where esbuild's account of what is in it goes
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { build } from 'esbuild';
import { licencesOf } from './licences.mjs';

const [target = 'dist', metafilePath] = process.argv.slice(2);
const ENTRIES = [
  ...['main', 'post', 'engine-main'].map((name) => `src/action/${name}.ts`),
  ...['supervisor-main', 'plan-main', 'spool-main'].map((name) => `src/engine/${name}.ts`),
  'src/container/exec-main.ts',
  'src/store/cache/agent-main.ts',
];

rmSync(target, { recursive: true, force: true });
const { metafile } = await build({
  entryPoints: ENTRIES,
  // Two folders deep and flat: our code finds its helpers beside itself, and package.json two folders above, as in lib/.
  outdir: join(target, 'lib/action'),
  entryNames: '[name]',
  chunkNames: 'chunk-[hash]',
  assetNames: '[name]',
  bundle: true,
  splitting: true,
  platform: 'node',
  target: 'node20',
  format: 'esm',
  loader: { '.node': 'copy' },
  plugins: [nativeKoffi(), withoutUnused()],
  // What is CommonJS asks for Node's own modules, and koffi for its binary, like this.
  banner: {
    js: "import { createRequire as requireFor } from 'node:module';\nconst require = requireFor(import.meta.url);",
  },
  // Names stay: they are what a stack trace shows.
  minifyWhitespace: true,
  minifySyntax: true,
  legalComments: 'none',
  metafile: true,
  logLevel: 'warning',
});
const { name, version, license } = JSON.parse(readFileSync('package.json', 'utf8'));
writeFileSync(join(target, 'package.json'), `${JSON.stringify({ name, version, license, type: 'module' }, null, 2)}\n`);
mkdirSync(join(target, 'runtime'));
cpSync('runtime/tested-packages.json', join(target, 'runtime/tested-packages.json'));
writeFileSync(join(target, 'licenses.txt'), licencesOf([metafile]));
if (metafilePath !== undefined) writeFileSync(metafilePath, JSON.stringify(metafile));

/** koffi looks for its binary in node_modules; here it lies beside the bundle. Only that for glibc: the runner's Node.js has no other. */
function nativeKoffi() {
  return {
    name: 'native-koffi',
    setup({ onLoad }) {
      onLoad({ filter: /\/koffi\/src\/koffi\/src\/static\.js$/ }, () => ({
        contents: `const native = require('@koromix/koffi-linux-x64/linux_x64/koffi.node');\nexport const loadStatic = () => native;`,
        loader: 'js',
      }));
    },
  };
}

/** An HTTP client of half a megabyte, which @actions/core has for a login that we do not use: loaded for nothing unless it may be left out. */
function withoutUnused() {
  return {
    name: 'without-unused',
    setup({ onResolve, resolve }) {
      onResolve({ filter: /^@actions\/(?:http-client|exec)/ }, async ({ path, pluginData, ...options }) => {
        if (pluginData === 'resolved') return undefined;
        const { importer, kind, resolveDir } = options;
        const found = await resolve(path, { importer, kind, resolveDir, pluginData: 'resolved' });
        return { ...found, sideEffects: false };
      });
    },
  };
}
