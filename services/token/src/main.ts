import { run } from '@haven/runtime'
import { tokenConfig } from './config.ts'
import { openToken } from './standalone.ts'

await run(openToken, tokenConfig)
