// SPDX-License-Identifier: Apache-2.0
/** All that is used of the AWS SDK for Batch. `npm run build` makes one file of this and of the packages it needs: they are loaded in half the time. */
export { BatchClient, DescribeJobsCommand, SubmitJobCommand } from '@aws-sdk/client-batch';
