import { problems } from '@haven/errors'

/** The services that the launcher can start, in the order in which they stop. */
export const serviceNames = [
  'proxy',
  'token',
  'registry',
  'core',
  'jobservice',
  'registryctl',
  'exporter',
  'log-collector',
] as const

export type ServiceName = (typeof serviceNames)[number]

/** What one operating system process runs. */
export type ProcessGroup = {
  name: string
  services: readonly ServiceName[]
  copies: number
  /** Node options of its own. */
  nodeOptions: readonly string[]
}

/** A small young generation: Node's own may grow to 64 MiB, which bulk bytes keep it at. Decision 0007 has what each size costs. */
const SMALL_HEAP = ['--max-semi-space-size=4']
/**
 * Of those that pulls go through: with less, a third of a small request is collecting what others left. Collected by the thread that has to wait
 * for it anyway: helpers that have no core of their own are waited for longer (0021).
 */
const PULL_HEAP = ['--max-semi-space-size=16', '--no-parallel-scavenge']

export type Shape = 'single' | 'split'

/**
 * How an installation on one machine is divided into processes. `single`: the request path in one process, so that blob bytes
 * cross no other, once for each pair of cores; everything else in another. `split`: as in containers, one process a service.
 */
export function processGroups(shape: Shape, cores: number): ProcessGroup[] {
  if (shape === 'split')
    return serviceNames.map((name) => ({
      name,
      services: [name],
      copies: 1,
      nodeOptions: name === 'proxy' || name === 'registry' ? PULL_HEAP : SMALL_HEAP,
    }))
  return [
    {
      name: 'back',
      services: ['jobservice', 'registryctl', 'exporter', 'log-collector'],
      copies: 1,
      nodeOptions: SMALL_HEAP,
    },
    {
      name: 'front',
      services: ['proxy', 'token', 'registry', 'core'],
      copies: Math.max(1, Math.floor(cores / 2)),
      nodeOptions: PULL_HEAP,
    },
  ]
}

/** Splits what was given to `--services`. @throws Problem naming the unknown one. */
export function parseServices(list: string): ServiceName[] {
  const names = list.split(',').map((name) => name.trim())
  for (const name of names) {
    if (!isServiceName(name)) {
      throw problems.badUsage({ message: `unknown service "${name}"; known are ${serviceNames.join(', ')}` })
    }
  }
  return names as ServiceName[]
}

const isServiceName = (name: string): name is ServiceName => (serviceNames as readonly string[]).includes(name)
