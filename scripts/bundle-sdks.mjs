// SPDX-License-Identifier: Apache-2.0
// Makes one file of each cloud's SDK, in the place of the module that names what is used of it. Every process of a job in object storage loads
// one: out of several hundred files that takes twice the time, and more memory, than out of one. FOLDER/licenses.txt has the licences of what is in them.
// Usage: bundle-sdks.mjs [FOLDER=lib]
import { writeFileSync } from 'node:fs';
import { build } from 'esbuild';
import { licencesOf } from './licences.mjs';

const [folder = 'lib'] = process.argv.slice(2);
const metafiles = [];
for (const user of ['store/s3', 'store/gs', 'store/cache', 'batch']) {
  const sdk = `${folder}/${user}/sdk.js`;
  const { metafile } = await build({
    entryPoints: [sdk],
    outfile: sdk,
    allowOverwrite: true,
    bundle: true,
    platform: 'node',
    target: 'node20',
    format: 'esm',
    // What is CommonJS in there asks for Node's own modules like this; what is not may have made the same for itself.
    banner: {
      js: "import { createRequire as bannerRequire } from 'node:module';\nconst require = bannerRequire(import.meta.url);",
    },
    legalComments: 'inline',
    metafile: true,
    logLevel: 'warning',
  });
  metafiles.push(metafile);
}
writeFileSync(`${folder}/licenses.txt`, licencesOf(metafiles));
