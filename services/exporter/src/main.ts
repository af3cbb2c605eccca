import { Foundation } from '@haven/foundation'
import { run } from '@haven/runtime'
import { exporterConfig } from './config.ts'
import { openExporter } from './open.ts'

await run((host) => openExporter(host, new Foundation(host)), exporterConfig)
