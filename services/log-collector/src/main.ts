import { run } from '@haven/runtime'
import { logCollectorConfig } from './config.ts'
import { openLogCollector } from './service.ts'

await run(openLogCollector, logCollectorConfig)
