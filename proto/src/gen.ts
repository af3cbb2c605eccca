// Writes src/gen/ from openapi/*.yaml and haven/**/*.proto: types, the table of operations, protobuf messages.
// Does nothing when no input changed since the last run.
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { parse } from 'yaml'
import { buildContract, ContractError, type ApiName, type Document } from './contract.ts'

const root = fileURLToPath(new URL('..', import.meta.url))
const target = join(root, 'src/gen')
const documents: { api: ApiName; file: string }[] = [
  { api: 'harbor', file: 'harbor-v2.0.yaml' },
  { api: 'oci', file: 'oci-v2.yaml' },
  { api: 'haven', file: 'haven-v1.yaml' },
]

const inputs = [
  ...documents.map(({ file }) => join(root, 'openapi', file)),
  ...readdirSync(join(root, 'haven'), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.proto'))
    .sort()
    .map((name) => join(root, 'haven', name)),
  ...['buf.yaml', 'buf.gen.yaml', 'package.json', 'src/gen.ts', 'src/contract.ts'].map((name) => join(root, name)),
]
const hash = createHash('sha256')
for (const file of inputs) hash.update(`${file.slice(root.length)}\0`).update(readFileSync(file))
const stamp = hash.digest('hex')
const stampFile = join(target, '.inputs')

if (!existsSync(stampFile) || readFileSync(stampFile, 'utf8') !== stamp) {
  try {
    await generate()
  } catch (error) {
    if (!(error instanceof ContractError)) throw error
    console.error(error.message)
    process.exitCode = 1
  }
}

async function generate() {
  const read: (Document & { text: string })[] = documents.map(({ api, file }) => {
    const text = readFileSync(join(root, 'openapi', file), 'utf8')
    return { api, file, text, content: parse(text) as unknown }
  })
  const contract = buildContract(read)

  // Beside the old output, then swapped: whoever reads meanwhile sees one or the other whole.
  const fresh = `${target}.${process.pid}`
  rmSync(fresh, { recursive: true, force: true })
  mkdirSync(fresh, { recursive: true })
  try {
    const messages = promisify(execFile)(join(root, 'node_modules/.bin/buf'), ['generate', '-o', fresh], {
      cwd: root,
      env: { ...process.env, PATH: `${join(root, 'node_modules/.bin')}:${process.env['PATH'] ?? ''}` },
    })
    writeFileSync(join(fresh, 'contract.json'), JSON.stringify(contract))
    // For who serves or explores the documents: reading them as YAML costs half a second.
    mkdirSync(join(fresh, 'openapi'))
    for (const { file, content } of read)
      writeFileSync(join(fresh, 'openapi', file.replace('.yaml', '.json')), JSON.stringify(content))
    // Costs half a second to load: only when there is something to generate.
    const { default: openapiTypescript, astToString } = await import('openapi-typescript')
    for (const { api, content } of read) {
      const ast = await openapiTypescript(content as Parameters<typeof openapiTypescript>[0], {
        defaultNonNullable: false,
      })
      writeFileSync(join(fresh, `${api}.ts`), `// Generated from ${api}; do not edit.\n${astToString(ast)}`)
    }
    await messages
    writeFileSync(join(fresh, '.inputs'), stamp)
    rmSync(target, { recursive: true, force: true })
    renameSync(fresh, target)
  } finally {
    rmSync(fresh, { recursive: true, force: true })
  }
  console.log(`proto: ${contract.operations.length} operations`)
}
