import { run } from '@haven/runtime'
import { coreConfig } from './config.ts'
import { openCore } from './standalone.ts'

await run(openCore, coreConfig)
