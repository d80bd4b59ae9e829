// SPDX-License-Identifier: Apache-2.0
/** All that is used of Google's SDK. `npm run build` makes one file of this and of the packages it needs: they are loaded in half the time. */
export { Storage } from '@google-cloud/storage';
export { Gaxios } from 'gaxios';
