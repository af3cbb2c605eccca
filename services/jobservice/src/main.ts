import { run } from '@haven/runtime'
import { jobserviceConfig } from './config.ts'
import { openJobservice } from './standalone.ts'

await run(openJobservice, jobserviceConfig)
