// SPDX-License-Identifier: Apache-2.0
// Faults between the SDK and the service, for a job in s3: (its files run side by side with those of gs:).
import { test } from '@jest/globals';
import { hasMoto } from '../support/moto.js';
import { testNetFaults } from '../support/net-faults.js';

if (hasMoto) testNetFaults('s3', 'user');
else test.skip('faults between a job and S3, against moto', () => undefined);
