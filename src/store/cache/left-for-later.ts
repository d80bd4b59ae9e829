// SPDX-License-Identifier: Apache-2.0

/**
 * What cannot be removed now (NFS keeps files that are open under another name) costs room in a temporary directory, and
 * must cost nothing else: neither an agent that others wait for, nor the application.
 */
export const leftForLater = (): void => undefined;
