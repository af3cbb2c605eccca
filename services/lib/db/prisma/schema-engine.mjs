#!/usr/bin/env node
// Stands in for Prisma's schema-engine binary: same JSON-RPC over stdio, run by the WebAssembly build from npm.
import { randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { createRequire } from 'node:module'
import { parseArgs } from 'node:util'
import * as bg from '@prisma/schema-engine-wasm/schema_engine_bg'
import { bindMigrationAwareSqlAdapterFactory, ColumnTypeEnum } from '@prisma/driver-adapter-utils'
import { PrismaPg } from '@prisma/adapter-pg'
import pg from 'pg'

const wasmFile = createRequire(import.meta.url)
  .resolve('@prisma/schema-engine-wasm/schema_engine_bg')
  .replace(/\.js$/, '.wasm')
const { instance } = await WebAssembly.instantiate(readFileSync(wasmFile), { './schema_engine_bg.js': bg })
bg.__wbg_set_wasm(instance.exports)
instance.exports.__wbindgen_start()

const { values, positionals } = parseArgs({
  allowPositionals: true,
  strict: false,
  options: {
    datamodels: { type: 'string', multiple: true },
    datasource: { type: 'string' },
    version: { type: 'boolean' },
    'enabled-preview-features': { type: 'string' },
    'extension-types': { type: 'string' },
  },
})
if (values.version) {
  console.log(`schema-engine-cli ${bg.version()}`)
  process.exit(0)
}
const url = JSON.parse(values.datasource ?? '{}').url
const fail = (code, message) => {
  // the CLI skips the first stderr line, then reads JSON log lines
  process.stderr.write(
    `\n${JSON.stringify({ level: 'ERROR', target: 'schema_engine::logger', fields: { error_code: code, message } })}\n`,
  )
  process.exit(1)
}
const maintenance = async (sql) => {
  const u = new URL(url)
  const name = decodeURIComponent(u.pathname.slice(1))
  u.pathname = '/postgres'
  u.search = ''
  const c = new pg.Client({ connectionString: u.href })
  await c.connect()
  try {
    await c.query(sql(c.escapeIdentifier(name)))
  } finally {
    await c.end()
  }
}
if (positionals[0] === 'cli') {
  try {
    if (positionals[1] === 'can-connect-to-database') {
      const c = new pg.Client({ connectionString: url })
      await c.connect()
      await c.end()
    } else if (positionals[1] === 'create-database') await maintenance((n) => `CREATE DATABASE ${n}`)
    else if (positionals[1] === 'drop-database') await maintenance((n) => `DROP DATABASE ${n} WITH (FORCE)`)
    process.exit(0)
  } catch (e) {
    fail(e.code === '3D000' ? 'P1003' : 'P1001', e.message)
  }
}

const schema = url ? (new URL(url).searchParams.get('schema') ?? 'public') : 'public'
// Gaps in adapter-pg 7.10.0, closed here: pg's internal "char" type (OID 18), which the catalogue queries return, has no
// mapping; executeScript() splits on every ';'; connectToShadowDb() hits the MAIN database when given a connectionString,
// and drops before it disconnects.
const u = new URL(url)
const config = {
  host: u.searchParams.get('host') ?? u.hostname,
  port: Number(u.port || 5432),
  user: decodeURIComponent(u.username),
  password: decodeURIComponent(u.password),
  database: decodeURIComponent(u.pathname.slice(1)),
  ssl: !['disable', null].includes(u.searchParams.get('sslmode')),
}
const CHAR_OID = 18,
  TEXT_OID = 25
const withChar = (q) => {
  const charColumns = new WeakMap()
  const io = q.performIO.bind(q),
    raw = q.queryRaw.bind(q)
  q.performIO = async (query) => {
    const r = await io(query)
    charColumns.set(
      r.rows,
      r.fields.flatMap((f, i) => (f.dataTypeID === CHAR_OID ? [((f.dataTypeID = TEXT_OID), i)] : [])),
    )
    return r
  }
  q.queryRaw = async (query) => {
    const r = await raw(query)
    for (const i of charColumns.get(r.rows) ?? []) r.columnTypes[i] = ColumnTypeEnum.Character
    return r
  }
  if (q.underlyingDriver)
    q.executeScript = async (script) => {
      try {
        await q.underlyingDriver().query(script)
      } catch (e) {
        q.onError(e)
      }
    }
  if (q.startTransaction) {
    const begin = q.startTransaction.bind(q)
    q.startTransaction = async (l) => withChar(await begin(l))
  }
  return q
}
const base = new PrismaPg(config, { schema })
const factory = bindMigrationAwareSqlAdapterFactory({
  provider: base.provider,
  adapterName: base.adapterName,
  connect: async () => withChar(await base.connect()),
  connectToShadowDb: async () => {
    const database = `prisma_migrate_shadow_db_${randomUUID()}`
    const main = await base.connect()
    await main.executeScript(`CREATE DATABASE "${database}"`)
    const shadow = withChar(await new PrismaPg({ ...config, database }, { schema }).connect())
    const dispose = shadow.dispose.bind(shadow)
    shadow.dispose = async () => {
      await dispose()
      await main.executeScript(`DROP DATABASE "${database}" WITH (FORCE)`)
      await main.dispose()
    }
    return shadow
  },
})
const open = () =>
  bg.SchemaEngine.new({ datamodels: values.datamodels?.map((f) => [f, readFileSync(f, 'utf8')]) }, () => {}, factory)
const methods = { getDatabaseVersion: 'version' }
for await (const line of createInterface({ input: process.stdin })) {
  if (!line.trim()) continue
  const { id, method, params } = JSON.parse(line)
  let reply, engine
  try {
    engine = await open()
    // These two only read the engine's cache of the replayed migrations, which devDiagnostic fills.
    if (method === 'evaluateDataLoss' || method === 'createMigration')
      await engine.devDiagnostic({ migrationsList: params.migrationsList, filters: params.filters })
    const result = (await engine[methods[method] ?? method](params)) ?? {}
    if (method === 'diff' && result.stdout != null) {
      process.stdout.write(
        `${JSON.stringify({ jsonrpc: '2.0', id: `p${id}`, method: 'print', params: { content: result.stdout.replace(/\n$/, '') } })}\n`,
      )
    }
    reply = { jsonrpc: '2.0', id, result }
  } catch (err) {
    let data = { message: String(err?.message ?? err), is_panic: false }
    if (err?.code) data.error_code = err.code
    if (err?.meta) data.meta = err.meta
    reply = { jsonrpc: '2.0', id, error: { code: 4466, message: data.message, data } }
  } finally {
    engine?.free()
  }
  process.stdout.write(`${JSON.stringify(reply)}\n`)
}
process.exit(0)
