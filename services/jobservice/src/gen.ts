// Writes src/gen/jobs.ts: an import of every file of src/jobs, so that the import graph is static and nobody keeps a list.
import { mkdirSync, readdirSync, renameSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const at = (path: string) => fileURLToPath(new URL(path, import.meta.url))

const names = readdirSync(at('jobs'))
  .filter((file) => file.endsWith('.ts') && !file.endsWith('.test.ts'))
  .map((file) => file.slice(0, -'.ts'.length))
  .sort()
// "Job" so that a file may be called export.ts.
const identifier = (name: string) => `${name.replaceAll(/-(\w)/g, (_, letter: string) => letter.toUpperCase())}Job`

mkdirSync(at('gen'), { recursive: true })
// Beside the old file, then swapped: whoever reads meanwhile sees one or the other whole.
const fresh = at(`gen/jobs.ts.${process.pid}`)
writeFileSync(
  fresh,
  `// Written by \`pnpm gen\` from the files of src/jobs.
import type { Job } from '../job-deps.ts'
${names.map((name) => `import ${identifier(name)} from '../jobs/${name}.ts'`).join('\n')}

export const jobs: readonly Job[] = [${names.map(identifier).join(', ')}]
`,
)
renameSync(fresh, at('gen/jobs.ts'))
