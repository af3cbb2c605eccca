import { Foundation } from '@haven/foundation'
import { run } from '@haven/runtime'
import { registryConfig } from './config.ts'
import { openRegistry } from './open.ts'

await run((host) => openRegistry(host, new Foundation(host)), registryConfig)
