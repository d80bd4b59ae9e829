// SPDX-License-Identifier: Apache-2.0
/** All that is used of GitHub's cache client. `npm run build` makes one file of this and of the packages it needs: they are loaded in half the time. */
export { restoreCache, saveCache } from '@actions/cache';
