import { Foundation } from '@haven/foundation'
import { run } from '@haven/runtime'
import { coreConfig } from './config.ts'
import { openCore } from './open.ts'

await run((host) => openCore(host, new Foundation(host)), coreConfig)
