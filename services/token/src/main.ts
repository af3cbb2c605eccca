import { Foundation } from '@haven/foundation'
import { run } from '@haven/runtime'
import { tokenConfig } from './config.ts'
import { openToken } from './open.ts'

await run((host) => openToken(host, new Foundation(host)), tokenConfig)
