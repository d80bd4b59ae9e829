// SPDX-License-Identifier: Apache-2.0
// Faults between the SDK and the service, for a job in gs: (its files run side by side with those of s3:).
import { testNetFaults } from '../support/net-faults.js';

testNetFaults('gs', 'root');
