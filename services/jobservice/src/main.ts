import { Foundation } from '@haven/foundation'
import { run } from '@haven/runtime'
import { jobserviceConfig } from './config.ts'
import { openJobservice } from './open.ts'

await run((host) => openJobservice(host, new Foundation(host)), jobserviceConfig)
