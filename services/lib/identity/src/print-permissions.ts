import { writeFileSync } from 'node:fs'
import { printPermissions } from './permissions.ts'

writeFileSync(new URL('../permissions.txt', import.meta.url), printPermissions())
