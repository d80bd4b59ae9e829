// SPDX-License-Identifier: Apache-2.0
// The S3 store by the real SDK against a real server on loopback.
import { afterAll, beforeAll } from '@jest/globals';
import { openStore } from '../../src/store/store.js';
import { startMoto, type S3Server } from '../support/moto.js';
import { describeStore } from '../unit/store/conformance.js';

let server: S3Server;
const saved = { ...process.env };
let places = 0;

beforeAll(async () => {
  server = await startMoto();
  Object.assign(process.env, server.env);
  await server.makeBucket('conformance');
}, 60_000);

afterAll(async () => {
  process.env = saved;
  await server.stop();
});

describeStore('s3:', () => {
  const url = `s3://conformance/place ${places++} ä%41+&/job`;
  return { open: () => openStore(url) };
});
