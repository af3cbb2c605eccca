export type Layer = {
  name: string
  packages: readonly string[]
  /** Layers further in that it may import. */
  mayUse: readonly string[]
  /** A package may use those to its left. */
  inOrder: boolean
}

/** ARCHITECTURE.md, "Dependency direction", from the inside out. */
export const layers: readonly Layer[] = [
  { name: 'proto', packages: ['proto'], mayUse: [], inOrder: false },
  { name: 'pure', packages: ['errors', 'oci', 'config'], mayUse: ['proto'], inOrder: true },
  {
    name: 'plumbing',
    packages: ['telemetry', 'db', 'embedded', 'outbound', 'events', 'queue', 'storage', 'runtime', 'registry-client'],
    mayUse: ['proto', 'pure'],
    inOrder: true,
  },
  {
    name: 'domain',
    packages: ['settings', 'identity', 'projects', 'registries', 'artifacts', 'foundation'],
    mayUse: ['proto', 'pure', 'plumbing'],
    inOrder: true,
  },
  { name: 'testkit', packages: ['testkit'], mayUse: ['proto', 'pure', 'plumbing', 'domain'], inOrder: false },
  {
    name: 'services',
    packages: ['proxy', 'token', 'registry', 'core', 'jobservice', 'registryctl', 'exporter', 'log-collector'],
    mayUse: ['proto', 'pure', 'plumbing', 'domain'],
    inOrder: false,
  },
  {
    name: 'launcher',
    packages: ['launcher'],
    mayUse: ['proto', 'pure', 'plumbing', 'domain', 'services'],
    inOrder: false,
  },
  { name: 'test', packages: ['test'], mayUse: ['proto', 'testkit'], inOrder: false },
]

/** Which library owns the tables of each schema of Postgres, and which one table of another's schema. */
export const owners: Readonly<Record<string, string>> = {
  system: 'db',
  'system.settings': 'settings',
  identity: 'identity',
  projects: 'projects',
  registries: 'registries',
  artifacts: 'artifacts',
  events: 'events',
  jobs: 'queue',
  scanning: 'scanning',
  trust: 'trust-policy',
}
