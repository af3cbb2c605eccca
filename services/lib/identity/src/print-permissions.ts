import { writeFileSync } from 'node:fs'
import { printOperations } from './operation-table.ts'
import { printPermissions } from './permissions.ts'

writeFileSync(new URL('../permissions.txt', import.meta.url), printPermissions())
writeFileSync(new URL('../operations.txt', import.meta.url), printOperations())
