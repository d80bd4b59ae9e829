// SPDX-License-Identifier: Apache-2.0
// The tests are compiled by tsc into .build/ first (scripts/test.sh does all of it); jest runs what lies there, as plain ES modules.
const common = { testEnvironment: 'node', transform: {}, injectGlobals: false };

export default {
  // For two cores: suites wait as long as they compute, for an application, a service, a time limit. A third fills what two leave.
  maxWorkers: 3,
  testSequencer: '<rootDir>/scripts/jest-sequencer.mjs',
  reporters: ['default', '<rootDir>/scripts/jest-reporter.mjs'],
  projects: [
    {
      ...common,
      displayName: 'unit',
      roots: ['<rootDir>/.build/test'],
      testMatch: ['<rootDir>/.build/test/**/*.test.js'],
      testPathIgnorePatterns: ['<rootDir>/.build/test/integration/'],
    },
    {
      ...common,
      displayName: 'integration',
      roots: ['<rootDir>/.build/test/integration'],
      testMatch: ['<rootDir>/.build/test/integration/**/*.test.js'],
      globalSetup: '<rootDir>/.build/test/support/global-setup.js',
      globalTeardown: '<rootDir>/.build/test/support/global-teardown.js',
    },
  ],
};
