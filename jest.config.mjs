const base = {
  testEnvironment: 'node',
  extensionsToTreatAsEsm: ['.ts'],
  transform: { '\\.ts$': '<rootDir>/jest.strip.mjs' },
}

export default {
  // For what hangs: a test that waits for processes takes a minute on a machine that is shared by many.
  testTimeout: 120_000,
  // Most tests wait for processes rather than compute: two at a time take little more than half as long.
  maxWorkers: 2,
  reporters: ['default', 'summary', '<rootDir>/test/reporter.mjs'],
  // A fresh Postgres and Redis for the run; each spec file clones the migrated database.
  globalSetup: '<rootDir>/services/lib/testkit/src/global-setup.ts',
  globalTeardown: '<rootDir>/services/lib/testkit/src/global-teardown.ts',
  projects: [
    { ...base, displayName: 'unit', testMatch: ['<rootDir>/{proto,services}/**/*.test.ts'] },
    { ...base, displayName: 'architecture', testMatch: ['<rootDir>/test/architecture/**/*.test.ts'] },
    { ...base, displayName: 'api', testMatch: ['<rootDir>/test/{api,abuse,flows}/**/*.test.ts'] },
    { ...base, displayName: 'clients', testMatch: ['<rootDir>/test/clients/**/*.test.ts'] },
    { ...base, displayName: 'conformance', testMatch: ['<rootDir>/test/conformance/**/*.test.ts'] },
    { ...base, displayName: 'faults', testMatch: ['<rootDir>/test/{faults,model}/**/*.test.ts'] },
    { ...base, displayName: 'deploy', testMatch: ['<rootDir>/test/deploy/**/*.test.ts'] },
  ],
}
