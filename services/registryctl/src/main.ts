import { Foundation } from '@haven/foundation'
import { run } from '@haven/runtime'
import { registryctlConfig } from './config.ts'
import { openRegistryctl } from './open.ts'

await run((host) => openRegistryctl(host, new Foundation(host)), registryctlConfig)
