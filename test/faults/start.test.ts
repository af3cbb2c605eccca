import { randomBytes } from 'node:crypto'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import {
  ADMIN_PASSWORD,
  freePort,
  runHaven,
  startHaven,
  testDatabase,
  testRedis,
  type TestDatabase,
} from '@haven/testkit'
import { lacking, titled } from '@haven/testkit/tools'
import { must } from '../clients/tools.ts'
import { Client, digestOf } from './client.ts'
import { collectGarbage, endPromises, processesOf } from './harness.ts'

let folder: string
const databases: TestDatabase[] = []

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'haven-start-'))
})

afterAll(async () => {
  for (const database of databases) await database[Symbol.asyncDispose]()
  rmSync(folder, { recursive: true, force: true })
}, 60_000)

const newHome = () => join(folder, randomBytes(4).toString('hex'))

/** `haven up` with a Postgres and a Redis that run already, so that only what the test is about is started. */
async function up(env: Record<string, string> = {}, home = newHome()) {
  const { url, prefix } = testRedis()
  // Its own: a database belongs to the installation, and key, that used it first.
  const database = await testDatabase()
  databases.push(database)
  const all = {
    ...process.env,
    NODE_OPTIONS: '',
    HAVEN_HOME: home,
    HAVEN_PORT: String(await freePort()),
    HAVEN_ADMIN_PASSWORD: ADMIN_PASSWORD,
    DATABASE_URL: database.url,
    REDIS_URL: url,
    REDIS_PREFIX: prefix,
    ...env,
  }
  const outcome = await runHaven(['up'], all)
  return {
    ...outcome,
    left: processesOf(home),
    down: () => runHaven(['down'], all),
  }
}

/** It said why, in a line of its own, with its own exit code, and nothing of it runs. Soon: `haven up` waits two minutes for health, and the tests one. */
function expectRefused(outcome: Awaited<ReturnType<typeof up>>, code: number, ...said: (RegExp | string)[]) {
  const { output } = outcome
  for (const each of said) expect(output).toMatch(each)
  expect(output).toMatch(/^haven: /m)
  expect(output).not.toMatch(/^\s+at /m)
  expect({ code: outcome.code, left: outcome.left }).toEqual({ code, left: [] })
}

const noMount = lackingToMount()
const itMounting = noMount === null ? it : it.skip

function lackingToMount(): string | null {
  if (process.getuid?.() === 0) return lacking('mount', 'umount')
  const reason = 'needs root, to mount a small file system'
  if (process.env.HAVEN_SKIP_NOTHING === '1') throw new Error(reason)
  return reason
}

/** A file system of so many MiB for as long as `work` takes. */
async function withSmallDisk<T>(mib: number, work: (path: string) => Promise<T>): Promise<T> {
  const path = newHome()
  mkdirSync(path)
  await must('mount', ['-t', 'tmpfs', '-o', `size=${mib}m`, 'haven-test', path])
  try {
    return await work(path)
  } finally {
    await must('umount', [path])
  }
}

describe('haven up refuses to start', () => {
  it('starts where nothing is wrong', async () => {
    const started = await up()
    expect(started).toMatchObject({ code: 0 })
    expect(started.left.length).toBeGreaterThan(2)
    await started.down()
  }, 60_000)

  it('when its port is taken', async () => {
    const server = createServer()
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const { port } = server.address() as AddressInfo
    expectRefused(await up({ HAVEN_PORT: String(port) }), 20, `127.0.0.1:${port} is in use`, 'HAVEN_PORT')
    server.close()
  }, 60_000)

  it('when settings of the installation are wrong, naming each', async () => {
    const outcome = await up({ HAVEN_PORT: 'eighty', HAVEN_SHAPE: 'round' })
    expectRefused(
      outcome,
      78,
      '2 settings are wrong',
      /HAVEN_PORT: .*eighty.*expected/,
      /HAVEN_SHAPE: .*round.*expected/,
    )
  }, 60_000)

  it('when settings of a service are wrong, naming each', async () => {
    const outcome = await up({ REGISTRY_BLOB_READS: 'sometimes', REGISTRY_UPLOAD_LEASE: 'soon' })
    const said = [/REGISTRY_BLOB_READS: .*sometimes.*expected/, /REGISTRY_UPLOAD_LEASE: .*soon.*expected/]
    expectRefused(outcome, 78, '2 settings are wrong', ...said)
  }, 60_000)

  it('when Postgres or Redis is not where it was said to be', async () => {
    const port = await freePort()
    const noDatabase = await up({ DATABASE_URL: `postgresql://haven:secret-word@127.0.0.1:${port}/haven` })
    expectRefused(noDatabase, 21, 'Postgres cannot be reached')
    expect(noDatabase.output).not.toContain('secret-word')
    expectRefused(await up({ REDIS_URL: `redis://127.0.0.1:${port}` }), 23, 'Redis cannot be reached')
  }, 60_000)

  it('when there is no Redis and none may be installed', async () => {
    // Node and nothing else: no redis-server, and no apt-get to install it with.
    const bin = newHome()
    mkdirSync(bin)
    symlinkSync(process.execPath, join(bin, 'node'))
    expectRefused(
      await up({ PATH: bin, REDIS_URL: '' }),
      29,
      'redis-server was not found',
      'apt-get install',
      'REDIS_URL=',
    )
  }, 60_000)

  it('when its own Postgres does not start, and its Redis does not stay', async () => {
    const home = newHome()
    mkdirSync(join(home, 'postgres'), { recursive: true, mode: 0o700 })
    writeFileSync(join(home, 'postgres', 'PG_VERSION'), '9.6\n')
    expectRefused(await up({ DATABASE_URL: '', REDIS_URL: '' }, home), 70, 'before it was ready')
  }, 60_000)

  it('when the blob store cannot be used', async () => {
    expectRefused(await up({ STORAGE_PATH: join(process.execPath, 'blobs') }), 24, 'the blob store cannot be used')
  }, 60_000)

  it('when the database is of a newer version', async () => {
    await using newer = await testDatabase()
    await newer.db.prisma.$executeRaw`
      insert into public._prisma_migrations (id, checksum, migration_name, started_at, finished_at, applied_steps_count)
      values ('later', 'x', '29990101000000_later', now(), now(), 1)`
    expectRefused(await up({ DATABASE_URL: newer.url }), 22, 'newer version', '29990101000000_later')
  }, 60_000)

  it('when the clock is far from the one of the database', async () => {
    await using early = await testDatabase()
    const { pathname } = new URL(early.url)
    // Found before Postgres' own function of this name: a database server whose clock is an hour ahead.
    await early.db.prisma.$executeRawUnsafe('create schema early')
    await early.db.prisma.$executeRawUnsafe(
      `create function early.clock_timestamp() returns timestamptz language sql as $$ select pg_catalog.clock_timestamp() + interval '1 hour' $$`,
    )
    await early.db.prisma.$executeRawUnsafe(
      `alter database ${pathname.slice(1)} set search_path = early, pg_catalog, public`,
    )
    expectRefused(await up({ DATABASE_URL: early.url }), 26, /36\d\d s behind the database's|3599 s behind/)
  }, 60_000)

  it('when the encryption key is not the one of this database', async () => {
    await using other = await testDatabase()
    const first = await up({ DATABASE_URL: other.url })
    expect(first.code).toBe(0)
    await first.down()
    // Another home has another key.
    expectRefused(await up({ DATABASE_URL: other.url }), 27, 'HAVEN_ENCRYPTION_KEY', 'sealed with another key')
  }, 60_000)

  it.each([
    ['is no key', 'HAVEN_ENCRYPTION_KEY', (text: string) => text.replace(/(_ENCRYPTION_KEY": ")[^"]+/, '$1c2hvcnQ=')],
    ['is cut off', 'secrets.json', (text: string) => text.slice(0, 20)],
  ])(
    'when the key that this installation keeps %s',
    async (_, blamed, damage) => {
      const home = newHome()
      const first = await up({}, home)
      expect(first.code).toBe(0)
      await first.down()
      const file = join(home, 'secrets.json')
      writeFileSync(file, damage(readFileSync(file, 'utf8')))
      expectRefused(await up({}, home), 27, 'cannot be used', blamed)
    },
    60_000,
  )

  itMounting(
    titled('when the disk is full', noMount),
    async () => {
      await withSmallDisk(64, async (path) => {
        expectRefused(await up({}, join(path, 'home')), 25, 'no space is left', '256 MiB')
      })
    },
    60_000,
  )
})

itMounting(
  titled('a store that is full refuses what does not fit, and serves and takes what does (F31)', noMount),
  async () => {
    await withSmallDisk(24, async (path) => {
      await using haven = await startHaven({ env: { STORAGE_PATH: path, HAVEN_TRASH: '0s' } })
      const client = new Client(haven.url)
      expect((await client.signIn(['library/full'])).status).toBe(200)
      const [fits, small] = [randomBytes(8 * 1024 * 1024), randomBytes(1024 * 1024)]
      expect((await client.pushBlob('library/full', fits)).status).toBe(201)
      for (let n = 0; n < 3; n++) {
        // The answer comes in the middle of the body and the connection is closed after it: a client that still writes may only see that.
        const refused = await client.pushBlob('library/full', randomBytes(40 * 1024 * 1024)).catch(() => null)
        if (refused === null) continue
        expect(refused.status).toBe(503)
        expect(refused.body.toString()).toContain('no space is left')
      }
      // Small enough to be read to its end before the answer.
      const filler = randomBytes(512 * 1024)
      let full: Awaited<ReturnType<Client['pushBlob']>> | null = null
      for (let n = 0; n < 40 && full?.status !== 503; n++) {
        filler.writeUInt32BE(n)
        full = await client.pushBlob('library/full', filler).catch(() => null)
      }
      expect(full).toMatchObject({ status: 503 })
      expect(full!.body.toString()).toContain('no space is left')
      expect(digestOf((await client.getBlob('library/full', digestOf(fits))).body)).toBe(digestOf(fits))
      // Garbage collection makes room without a restart.
      await endPromises(haven)
      expect(await collectGarbage(client)).toBe('Success')
      expect((await client.pushBlob('library/full', small)).status).toBe(201)
      expect((await client.getBlob('library/full', digestOf(small))).body.equals(small)).toBe(true)
      client.close()
    })
  },
  90_000,
)
