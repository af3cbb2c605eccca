import { spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, jest } from '@jest/globals'
import { migrate, openDatabase } from '@haven/db'
import { startPostgres, startRedis, type EmbeddedPostgres, type EmbeddedRedis } from '@haven/embedded'
import { freePort, testDatabase, testRedis } from '@haven/testkit'
import { lacking, titled } from '@haven/testkit/tools'
import { startVersityGw } from '@haven/testkit/versitygw'
import { Redis } from 'ioredis'
import { proveEncryptionKey, sealerOf } from '../installation.ts'
import { doctor } from './doctor.ts'

const folder = mkdtempSync(join(tmpdir(), 'haven-doctor-'))
const secret = () => randomBytes(32).toString('base64')
const [key, proxySecret] = [secret(), secret()]
let postgres: EmbeddedPostgres
let redis: EmbeddedRedis
/** An installation on servers of its own, by its environment alone. */
let healthy: NodeJS.ProcessEnv

beforeAll(async () => {
  const [blobs, home] = [join(folder, 'blobs'), join(folder, 'none')]
  mkdirSync(blobs)
  ;[postgres, redis] = await Promise.all([
    startPostgres({ folder: join(folder, 'postgres'), port: await freePort(), durable: true }),
    startRedis({ folder: join(folder, 'redis'), port: await freePort(), durable: true }),
  ])
  const url = postgres.url('haven')
  await migrate(url)
  await using db = openDatabase({ url, applicationName: 'haven-test', poolSize: 1 })
  await proveEncryptionKey(db, sealerOf(key))
  healthy = {
    HAVEN_HOME: home,
    DATABASE_URL: url,
    REDIS_URL: redis.url,
    HAVEN_ENCRYPTION_KEY: key,
    HAVEN_PROXY_SECRET: proxySecret,
    STORAGE_PATH: blobs,
  }
}, 60_000)
afterAll(async () => {
  await Promise.all([postgres?.stop('SIGINT'), redis?.stop('SIGTERM')])
  rmSync(folder, { recursive: true, force: true })
})

/** Of the system. */
const programs = { openssl: 'openssl', mount: 'mount', umount: 'umount' }

type Told = { id: string; severity: string; what: string; todo: string }

/** What a doctor finds when this is set besides. */
async function finds(change: NodeJS.ProcessEnv = {}): Promise<{ well: boolean; findings: Told[]; text: string }> {
  const lines: string[] = []
  const well = await doctor({ ...healthy, ...change }, true, (line) => lines.push(line))
  const text = lines.join('\n')
  const told = JSON.parse(text) as { well: boolean; findings: Told[] }
  expect(told.well).toBe(well)
  for (const { what, todo } of told.findings) expect([what, todo]).not.toContain('')
  return { ...told, text }
}
const ids = async (change?: NodeJS.ProcessEnv) => (await finds(change)).findings.map(({ id }) => id)

/** As if this machine's clock were so much ahead. */
async function ahead<T>(seconds: number, look: () => Promise<T>): Promise<T> {
  const right = Date.now
  const clock = jest.spyOn(Date, 'now').mockImplementation(() => right() + seconds * 1000)
  try {
    return await look()
  } finally {
    clock.mockRestore()
  }
}

/** A certificate and its key, in files. */
function certificate(name: string, { host = 'haven.test', days = 90 } = {}) {
  const at = (ending: string) => join(folder, `${name}.${ending}`)
  const openssl = (...args: string[]) => {
    const { status, stderr } = spawnSync(programs.openssl, args, { encoding: 'utf8' })
    if (status !== 0) throw new Error(stderr)
  }
  const made = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-subj', `/CN=${host}`]
  openssl('req', '-new', ...made, '-keyout', at('key'), '-out', at('csr'))
  writeFileSync(at('ext'), `subjectAltName=DNS:${host},IP:127.0.0.1\n`)
  const days_ = ['-days', String(days), '-extfile', at('ext')]
  openssl('x509', '-req', '-in', at('csr'), '-signkey', at('key'), ...days_, '-out', at('crt'))
  return { PROXY_TLS_CERT_FILE: at('crt'), PROXY_TLS_KEY_FILE: at('key'), CORE_CA_CERTIFICATE_FILE: at('crt') }
}

describe('doctor', () => {
  it('finds nothing on an installation that is as it should be', async () => {
    expect(await finds()).toMatchObject({ well: true, findings: [] })
    const lines: string[] = []
    expect(await doctor(healthy, false, (line) => lines.push(line))).toBe(true)
    expect(lines.every((line) => line.startsWith('ok '))).toBe(true)
    expect(lines.join('\n')).toMatch(/Postgres +1\d.*\n.*schema +up to date/)
  })

  it.each([
    [{ HAVEN_PORT: 'banana' }, 'settings.invalid', 'HAVEN_PORT is "banana"'],
    [{ REGISTRY_BLOB_READ: 'stream' }, 'settings.invalid', 'REGISTRY_BLOB_READ is not the name of a setting'],
    [{ EXPORTER_CACHE: 'banana' }, 'settings.invalid', 'EXPORTER_CACHE is "banana"'],
    [{ EXPORTER_COLOUR: 'blue' }, 'settings.unknown', 'nothing reads EXPORTER_COLOUR'],
    [
      { OTEL_EXPORTER_OTLP_ENDPOINT: 'http://127.0.0.1:1', TRACE_SAMPLE_RATE: '7' },
      'settings.invalid',
      'TRACE_SAMPLE_RATE is 7',
    ],
    [{ DATABASE_URL: '' }, 'settings.invalid', 'DATABASE_URL is not set'],
    [{ PROXY_TLS: 'files' }, 'settings.invalid', 'PROXY_TLS_CERT is not set'],
    [{ HAVEN_COLOUR: 'blue' }, 'settings.unknown', 'nothing reads HAVEN_COLOUR'],
    [{ CORE_SECRET: proxySecret }, 'secrets.equal', 'HAVEN_PROXY_SECRET and CORE_SECRET are the same'],
    [{ CORE_SECRET: 'ab'.repeat(20) }, 'secrets.weak', 'CORE_SECRET can be guessed'],
    [{ HAVEN_ADMIN_PASSWORD: 'Harbor12345' }, 'secrets.known-password', 'HAVEN_ADMIN_PASSWORD'],
    [{ HAVEN_ENCRYPTION_KEY: secret() }, 'key.other', 'sealed with another key'],
    [{ HAVEN_ENCRYPTION_KEY: 'no base64 of 32 bytes, however long' }, 'key.unreadable', 'not the base64 of 32 bytes'],
    [{ LOG_COLLECTOR_URL: 'http://127.0.0.1:1', LOG_COLLECTOR_SECRET: secret() }, 'logs.unreachable', '127.0.0.1:1'],
    [{ HAVEN_EXTERNAL_URL: 'http://127.0.0.1:1' }, 'clients.unreachable', 'http://127.0.0.1:1/v2/'],
    [
      { S3_PUBLIC_ENDPOINT: 'https://no-such-host.invalid' },
      'names.unknown',
      'no-such-host.invalid of S3_PUBLIC_ENDPOINT',
    ],
    [{ STORAGE_PATH: '/dev/null/blobs' }, 'store.unusable', '/dev/null/blobs'],
  ])('finds %j', async (change, id, what) => {
    const { findings } = await finds(change)
    expect(findings).toEqual([expect.objectContaining({ id, what: expect.stringContaining(what) })])
  })

  it('reads secrets from files, too', async () => {
    const path = join(folder, 'shared-secret')
    writeFileSync(path, `${proxySecret}\n`)
    expect(await ids({ CORE_SECRET_FILE: path })).toEqual(['secrets.equal'])
    expect(await ids({ HAVEN_ENCRYPTION_KEY: '', HAVEN_ENCRYPTION_KEY_FILE: path })).toEqual([
      'secrets.equal',
      'key.other',
    ])
  })

  it('A93: finds servers that refuse us or are away, and prints no password', async () => {
    const database = healthy.DATABASE_URL!.replace('postgres@', 'nobody:geheim-1@')
    for (const [change, id] of [
      [{ DATABASE_URL: database }, 'postgres.unreachable'],
      [{ DATABASE_URL: 'postgresql://haven:geheim-1@127.0.0.1:1/haven' }, 'postgres.unreachable'],
      [{ DATABASE_URL: 'geheim-1 is no URL' }, 'postgres.url'],
      [{ REDIS_URL: 'redis://:geheim-1@127.0.0.1:1' }, 'redis.unreachable'],
    ] as const) {
      const { findings, text } = await finds(change)
      expect(findings.map((one) => one.id)).toEqual([id])
      for (const hidden of ['geheim-1', key, proxySecret]) expect(text).not.toContain(hidden)
    }
  })

  it('finds a Postgres that forgets what it acknowledged, and one that has few connections left', async () => {
    await using careless = await testDatabase() // the one of the tests runs without fsync
    expect(await ids({ DATABASE_URL: careless.url })).toEqual(['postgres.not-durable', 'postgres.late-commit'])
    expect(await ids({ DATABASE_POOL: '100' })).toEqual(['postgres.connections'])
  })

  it('finds a user without rights', async () => {
    await using db = openDatabase({ url: healthy.DATABASE_URL!, applicationName: 'haven-test', poolSize: 1 })
    await db.prisma.$executeRawUnsafe('create role poor login')
    await db.prisma.$executeRawUnsafe('grant usage on schema system, public to poor')
    await db.prisma.$executeRawUnsafe('grant select on system.instance, public._prisma_migrations to poor')
    expect(await ids({ DATABASE_URL: healthy.DATABASE_URL!.replace('postgres@', 'poor@') })).toEqual([
      'postgres.rights',
    ])
  })

  it('finds a schema that is newer than this version, and takes one that is not there for a first start', async () => {
    await using database = await testDatabase()
    await database.db.prisma.$executeRaw`
      insert into public._prisma_migrations (id, checksum, migration_name, started_at, finished_at, applied_steps_count)
      values ('x', 'x', '29991231000000_from_the_future', now(), now(), 1)`
    const { findings } = await finds({ DATABASE_URL: database.url })
    expect(findings).toContainEqual(
      expect.objectContaining({ id: 'schema.newer', what: expect.stringContaining('29991231000000_from_the_future') }),
    )
    const fresh = await finds({ DATABASE_URL: postgres.url('postgres') })
    expect(fresh).toMatchObject({ well: true, findings: [] })
    expect(fresh.text).toContain('migrations are applied at the next start')
    expect(await finds({ DATABASE_URL: postgres.url('not_made_yet') })).toMatchObject({
      well: true,
      findings: [{ id: 'postgres.no-database', severity: 'warning' }],
    })
  })

  it('finds a Redis that refuses us, throws away, is full or keeps nothing', async () => {
    expect(await ids({ REDIS_URL: testRedis().url })).toEqual(['redis.forgets']) // the one of the tests
    const client = new Redis(redis.url)
    try {
      await client.config('SET', 'requirepass', 'another')
      expect(await ids({ REDIS_URL: redis.url.replace('//', '//:geheim-1@') })).toEqual(['redis.unreachable'])
      await client.config('SET', 'requirepass', '')
      await client.config('SET', 'maxmemory-policy', 'allkeys-lru')
      await client.config('SET', 'maxmemory', '1mb')
      expect(await ids()).toEqual(['redis.evicts', 'redis.full'])
    } finally {
      await client.config('SET', 'maxmemory', '0')
      await client.config('SET', 'maxmemory-policy', 'noeviction')
      client.disconnect()
    }
    expect(await ids()).toEqual([])
  })

  it('finds a clock that is not that of Postgres', async () => {
    const { well, findings } = await ahead(30, finds)
    expect([well, findings]).toEqual([
      true,
      [
        expect.objectContaining({
          id: 'clock.database',
          severity: 'warning',
          what: expect.stringContaining('30 s ahead'),
        }),
      ],
    ])
    const behind = await ahead(-600, finds)
    expect([behind.well, behind.findings]).toEqual([
      false,
      [
        expect.objectContaining({
          id: 'clock.database',
          severity: 'failure',
          what: expect.stringContaining('600 s behind'),
        }),
      ],
    ])
  })

  it('finds certificates that are over, of others, without their key and of nobody known', async () => {
    const tls = { HAVEN_TLS: 'files' }
    const good = certificate('good')
    expect(await ids({ ...tls, ...good })).toEqual([])
    expect(await ids({ ...tls, ...certificate('old', { days: -1 }) })).toEqual(['certificate.expired'])
    expect(await ids({ ...tls, ...certificate('soon', { days: 5 }) })).toEqual(['certificate.ends-soon'])
    const other = certificate('other')
    expect(await ids({ ...tls, ...good, PROXY_TLS_KEY_FILE: other.PROXY_TLS_KEY_FILE })).toEqual(['certificate.key'])
    expect(await ids({ ...tls, ...good, CORE_CA_CERTIFICATE_FILE: '' })).toEqual(['certificate.untrusted'])
    const elsewhere = await finds({ ...tls, ...good, HAVEN_EXTERNAL_URL: 'https://localhost:1' })
    expect(elsewhere.findings).toContainEqual(
      expect.objectContaining({ id: 'certificate.name', what: expect.stringMatching(/haven\.test.*localhost/) }),
    )
    const broken = join(folder, 'broken.crt')
    writeFileSync(broken, 'no certificate')
    expect(await ids({ ...tls, ...good, PROXY_TLS_CERT_FILE: broken })).toEqual(['certificate.unreadable'])
  })

  const noS3 = lacking('versitygw')
  ;(noS3 ? it.skip : it)(
    titled('finds an S3 secret that is wrong, and a clock that is not that of S3', noS3),
    async () => {
      await using s3 = await startVersityGw()
      const settings = { STORAGE_PATH: '', S3_ENDPOINT: s3.endpoint, S3_ACCESS_KEY: s3.accessKey, S3_BUCKET: 'probe' }
      expect(await ids({ ...settings, S3_SECRET_KEY: s3.secretKey })).toEqual([])
      expect(await ahead(600, () => ids({ ...settings, S3_SECRET_KEY: s3.secretKey }))).toEqual([
        'clock.database',
        'clock.store',
      ])
      const { findings, text } = await finds({ ...settings, S3_SECRET_KEY: 'wrong-secret-1' })
      expect(findings).toEqual([
        expect.objectContaining({ id: 'store.unusable', todo: expect.stringContaining('S3_SECRET_KEY') }),
      ])
      expect(text).not.toContain('wrong-secret-1')
    },
  )

  it('finds that the external URL is of another server', async () => {
    const server = createServer((_req, res) => res.end('hello'))
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
    try {
      const { findings } = await finds({ HAVEN_EXTERNAL_URL: url })
      expect(findings).toEqual([
        expect.objectContaining({ id: 'clients.not-haven', what: expect.stringContaining(url) }),
      ])
    } finally {
      server.closeAllConnections()
      server.close()
    }
  })

  const mounts = mountable()
  ;(mounts ? it : it.skip)(
    `finds a disk that is full and a store that is read-only${mounts ? '' : ' (skipped: this user may not mount)'}`,
    async () => {
      const disk = join(folder, 'disk')
      mkdirSync(disk)
      spawnSync(programs.mount, ['-t', 'tmpfs', '-o', 'size=16m', 'tmpfs', disk])
      try {
        expect(await ids({ LOG_COLLECTOR_PATH: disk })).toEqual(['disk.full'])
        spawnSync(programs.mount, ['-o', 'remount,ro', disk])
        expect(await ids({ STORAGE_PATH: disk })).toEqual(['disk.full', 'store.unusable'])
      } finally {
        spawnSync(programs.umount, [disk])
      }
    },
  )
})

function mountable(): boolean {
  const at = join(folder, 'try')
  mkdirSync(at)
  const { status } = spawnSync(programs.mount, ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', at])
  if (status === 0) spawnSync(programs.umount, [at])
  return status === 0
}
