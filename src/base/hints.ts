// SPDX-License-Identifier: Apache-2.0

/** What helps, as a rule, where no namespaces can be made. The smallest sets that work are in docker/README.md. */
export const WHAT_A_CONTAINER_NEEDS =
  'in Docker add --privileged, or --security-opt seccomp=unconfined --cap-add CHECKPOINT_RESTORE with --no-container';
