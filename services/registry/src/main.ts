import { run } from '@haven/runtime'
import { registryConfig } from './config.ts'
import { openRegistry } from './standalone.ts'

await run(openRegistry, registryConfig)
