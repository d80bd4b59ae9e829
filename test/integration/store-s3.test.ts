// SPDX-License-Identifier: Apache-2.0
// The S3 store by the real SDK against a real server on loopback.
import { afterAll, beforeAll, jest, test } from '@jest/globals';
import { openStore } from '../../src/store/store.js';
import { hasMoto, startMoto, type S3Server } from '../support/moto.js';
import { describeStore } from '../unit/store/conformance.js';

// Each operation is a few requests to a server that is not made for speed.
jest.setTimeout(60_000);

let server: S3Server;
const saved = { ...process.env };
let places = 0;

if (hasMoto) {
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
    // moto says of every upload that it began in 2010.
    return { open: () => openStore(url), datesUploads: false };
  });
} else test.skip('the S3 store against moto', () => undefined);
