// SPDX-License-Identifier: Apache-2.0
import { expect, test } from '@jest/globals';
import { FastFreezeError } from '../../../../src/base/errors.js';
import { readGsSettings } from '../../../../src/store/gs/gs-settings.js';

const KEY = 'projects/p-1/locations/europe-west1/keyRings/ring/cryptoKeys/key';

test('without variables there is nothing to say', () => {
  expect(readGsSettings({})).toEqual({ object: {} });
  expect(readGsSettings({ FF_GS_KMS_KEY: '', FF_GS_STORAGE_CLASS: '', FF_GS_METADATA: '' })).toEqual({ object: {} });
});

test('each variable has its place', () => {
  const env = {
    FF_GS_USER_PROJECT: 'example.com:payer-1',
    FF_GS_KMS_KEY: KEY,
    FF_GS_STORAGE_CLASS: 'COLDLINE',
    FF_GS_METADATA: 'team=a, job=b=c d,empty=',
  };
  expect(readGsSettings(env)).toEqual({
    userProject: 'example.com:payer-1',
    kmsKeyName: KEY,
    object: { storageClass: 'COLDLINE', metadata: { team: 'a', job: 'b=c d', empty: '' } },
  });
});

test.each([
  ['FF_GS_USER_PROJECT', 'My Project'],
  ['FF_GS_KMS_KEY', 'key'],
  ['FF_GS_KMS_KEY', `${KEY}/cryptoKeyVersions/1`],
  ['FF_GS_STORAGE_CLASS', 'standard'],
  ['FF_GS_METADATA', 'team'],
])('%s=%s is refused by name and value', (name, value) => {
  const read = (): unknown => readGsSettings({ [name]: value });
  expect(read).toThrow(FastFreezeError);
  expect(read).toThrow(`${name}=${value}`);
});
