// SPDX-License-Identifier: Apache-2.0
import { afterAll, beforeAll } from '@jest/globals';
import { openStore } from '../../../src/store/store.js';
import { describeStore } from './conformance.js';

let places = 0;
const bucket = `test${process.pid}`;
beforeAll(() => { process.env['AWS_ENDPOINT_URL']='http://127.0.0.1:5999'; process.env['AWS_ACCESS_KEY_ID']='a'; process.env['AWS_SECRET_ACCESS_KEY']='b';process.env['AWS_REGION']='us-east-1'; });
beforeAll(async () => { await fetch(`http://127.0.0.1:5999/${bucket}`, { method: 'PUT' }); });
afterAll(() => undefined);
describeStore('s3:', () => {
  const url = `s3://${bucket}/place ${places++} ä%41/x`;
  return { open: () => openStore(url) };
});
