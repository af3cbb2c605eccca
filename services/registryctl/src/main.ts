import { run } from '@haven/runtime'
import { registryctlConfig } from './config.ts'
import { openRegistryctl } from './standalone.ts'

await run(openRegistryctl, registryctlConfig)
