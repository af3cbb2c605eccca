import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import {
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { startHaven, type HavenInstallation } from '@haven/testkit'
import { lacking, titled } from '@haven/testkit/tools'
import { must, run } from '../clients/tools.ts'
import { Client, digestOf, newImage, pushImage } from './client.ts'
import { check, History } from './history.ts'
import {
  collectGarbage,
  disagreements,
  filesOf,
  isHealthy,
  processesOf,
  repositories,
  sleep,
  startLoad,
  startReplica,
  until,
} from './harness.ts'

const [repository] = repositories
/** How many calls of a kind are failed one by one: FAULTS_CALLS=40 for all that a push makes. */
const CALLS = Number(process.env.FAULTS_CALLS ?? 4)

let folder: string
const mounted = new Set<string>()

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'haven-disk-'))
})

// Here, not where they are mounted: what a test says of Haven is not to be hidden by a disk that is still in use.
afterAll(async () => {
  for (const path of mounted) await unmount(path)
  rmSync(folder, { recursive: true, force: true })
}, 60_000)

async function mount(path: string, ...args: string[]): Promise<void> {
  await must('mount', [...args, path])
  mounted.add(path)
}

/**
 * What the disk held at one moment, as after a power cut. A process that was stopped within an fsync still ends it, and a copy made meanwhile would
 * hold a journal of before and blocks of after: then it is made again.
 */
async function copyOfAnInstant(mounted: string, image: string, copy: string): Promise<void> {
  const device = basename((await must('findmnt', ['-no', 'SOURCE', mounted])).trim())
  // Fields of the kernel's Documentation/block/stat.rst: writes that ended, and what is under way.
  const writes = () => {
    const fields = readFileSync(`/sys/block/${device}/stat`, 'utf8').trim().split(/\s+/)
    return { ended: fields[4], underWay: Number(fields[8]) }
  }
  const isWhole = async () => {
    const before = writes()
    await must('cp', ['--sparse=always', image, copy])
    return before.underWay === 0 && before.ended === writes().ended
  }
  await until('nothing is written while the disk is copied', isWhole, 30_000)
}

/** @throws with who still works there when it stays in use. */
async function unmount(path: string): Promise<void> {
  await until('nothing holds the disk', async () => (await run('umount', [path])).code === 0, 20_000).catch((cause) => {
    throw new Error(`${path} is held by ${JSON.stringify(holding(path))}`, { cause })
  })
  mounted.delete(path)
}

const holding = (path: string) =>
  workingIn(path).map((pid) => readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' '))

function lackingAsRoot(...programs: string[]): string | null {
  if (process.getuid?.() === 0) return lacking(...programs)
  const reason = `needs root, for ${programs.join(', ')}`
  if (process.env.HAVEN_SKIP_NOTHING === '1') throw new Error(reason)
  return reason
}

function workingIn(path: string): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        return readlinkSync(`/proc/${pid}/cwd`).startsWith(path)
      } catch {
        return false // it ended meanwhile
      }
    })
    .map(Number)
}

/** Lets the n-th call of a kind fail in a process, from now on until it is called off. */
async function injecting(pid: number, call: string, error: string, nth: number): Promise<() => Promise<void>> {
  const args = [
    '-f',
    '-qq',
    '-e',
    `trace=${call}`,
    '-e',
    `inject=${call}:error=${error}:when=${nth}`,
    '-p',
    String(pid),
  ]
  const strace = spawn('strace', args, { stdio: ['ignore', 'ignore', 'pipe'] })
  let said = ''
  strace.stderr.on('data', (data: Buffer) => (said += data.toString()))
  const ended = new Promise<void>((resolve) => strace.once('exit', () => resolve()))
  const tracer = () => must('grep', ['TracerPid:', `/proc/${pid}/status`])
  await until('strace holds it', async () => (await tracer()).includes(`\t${strace.pid}`), 20_000)
  // All threads, not only the first: the calls are made by those that do file work.
  await sleep(200)
  return async () => {
    strace.kill('SIGINT')
    await ended
    if (/attach|ptrace/i.test(said)) throw new Error(`strace: ${said}`)
  }
}

describe('one call to the disk fails', () => {
  const lack = lackingAsRoot('strace')
  const test = lack === null ? it : it.skip
  let haven: HavenInstallation
  let client: Client

  beforeAll(async () => {
    if (lack !== null) return
    haven = await startHaven({ env: { REGISTRY_UPLOAD_LEASE: '2s', HAVEN_TRASH: '0s' } })
    client = new Client(haven.url)
    expect((await client.signIn(repositories)).status).toBe(200)
  }, 120_000)

  afterAll(async () => {
    client?.close()
    await haven?.[Symbol.asyncDispose]()
  }, 60_000)

  test.each([
    ['F31', 'pwrite64', 'ENOSPC', 'no space is left'],
    ['F32', 'pwrite64', 'EIO', 'the blob store cannot be used', 1000],
    ['F31', 'linkat,link', 'ENOSPC', 'no space is left'],
    ['F31', 'pwrite64', 'EROFS', 'the blob store cannot be used'],
    ['F32', 'fdatasync', 'EIO', ''],
    ['F32', 'fsync', 'EIO', ''],
  ])(
    `%s: %s says %s: the push is refused, nothing partial is there, and it succeeds when repeated`,
    async (_id, call, error, says, least = 3 * 1024 * 1024) => {
      await using replica = await startReplica(haven)
      const beside = client.at(replica.url)
      const history = new History()
      let refused = 0
      for (let nth = 1; nth <= CALLS; nth++) {
        const bytes = randomBytes(least + nth)
        const what = { client: 0, kind: 'push blob' as const, repository, subject: history.remember(bytes) }
        const stop = await injecting(replica.pid, call, error, nth)
        const first = await history.attempt(what, () => beside.pushBlob(repository, bytes))
        await stop()
        if (first?.status !== 201) {
          refused++
          // A client that is told that its upload is gone begins again; one that is told to come back, comes back.
          expect([404, 500, 503]).toContain(first?.status)
          if (says !== '')
            expect({ status: first!.status, body: first!.body.toString() }).toEqual({
              status: 503,
              body: expect.stringContaining(says),
            })
          expect((await client.headBlob(repository, digestOf(bytes))).status).toBe(404)
        }
        expect((await history.attempt(what, () => beside.pushBlob(repository, bytes)))?.status).toBe(201)
      }
      expect(refused).toBeGreaterThan(0)
      beside.close()
      expect(await check(history, [client])).toEqual([])
      await haven.query(`update artifacts.uploads set updated_at = now() - interval '2 days', locked_until = now()`)
      expect(await collectGarbage(client)).toBe('Success')
      expect(filesOf(haven).incoming).toEqual([])
      expect(await disagreements(haven)).toEqual([])
    },
    120_000,
  )
})

describe('the disk', () => {
  const lack = lackingAsRoot('mount', 'umount')
  const test = lack === null ? it : it.skip

  test(
    titled('is read-only: pushes are told so, pulls go on, and pushes after it was mounted again (F31)', lack),
    async () => {
      const path = join(folder, 'read-only')
      mkdirSync(path)
      await mount(path, '-t', 'tmpfs', '-o', 'size=64m', 'haven-test')
      await using haven = await startHaven({ env: { STORAGE_PATH: path } })
      const client = new Client(haven.url)
      expect((await client.signIn(repositories)).status).toBe(200)
      const image = newImage()
      expect((await pushImage(client, repository, 'kept', image)).status).toBe(201)
      const { location } = await client.startUpload(repository)
      const [first, second] = [randomBytes(1000), randomBytes(1000)]
      expect((await client.patch(location, first, 0)).status).toBe(202)

      await must('mount', ['-o', 'remount,ro', path])
      for (const answer of [
        await client.pushBlob(repository, randomBytes(100)),
        await client.patch(location, second, 1000),
      ]) {
        expect({ status: answer.status, body: answer.body.toString() }).toEqual({
          status: 503,
          body: expect.stringContaining('the blob store cannot be used'),
        })
      }
      for (const bytes of image.layers) {
        expect((await client.getBlob(repository, digestOf(bytes))).body.equals(bytes)).toBe(true)
      }

      await must('mount', ['-o', 'remount,rw', path])
      expect((await client.patch(location, second, 1000)).status).toBe(202)
      const whole = Buffer.concat([first, second])
      expect((await client.finish(location, digestOf(whole))).status).toBe(201)
      expect((await client.getBlob(repository, digestOf(whole))).body.equals(whole)).toBe(true)
      client.close()
    },
    120_000,
  )

  test(
    titled(
      'of Postgres is full: writes are told to come back, reads go on, and all is well when there is room (F17)',
      lack,
    ),
    async () => {
      const [home, data] = [join(folder, 'full'), join(folder, 'data')]
      for (const path of [home, data]) mkdirSync(path)
      symlinkSync(data, join(home, 'postgres'))
      await mount(data, '-t', 'tmpfs', '-o', 'size=320m,mode=700', 'haven-test')
      await using haven = await startHaven({ env: { REGISTRY_UPLOAD_LEASE: '2s', HAVEN_TRASH: '0s' }, home })
      const client = new Client(haven.url)
      expect((await client.signIn(repositories)).status).toBe(200)
      const history = new History()
      const push = async (tag: string) => {
        const image = newImage()
        const what = { client: 0, repository }
        for (const bytes of image.layers) {
          const blob = { ...what, kind: 'push blob' as const, subject: history.rememberSize(bytes) }
          const pushed = await history.attempt(blob, () => client.pushBlob(repository, bytes))
          if (pushed?.status !== 201) return pushed
        }
        const tagged = [
          { ...what, kind: 'push manifest' as const, subject: history.remember(image.manifest) },
          { ...what, kind: 'write tag' as const, subject: tag, value: image.digest },
        ]
        return history.attempt(tagged, () => client.putManifest(repository, tag, image.manifest))
      }
      const kept = newImage()
      expect((await pushImage(client, repository, 'kept', kept)).status).toBe(201)
      const { front, back } = haven.processes()

      const filler = join(data, 'filler')
      const fill = () => run('dd', ['if=/dev/zero', `of=${filler}`, 'bs=8k', 'oflag=append', 'conv=notrunc'])
      await fill()
      // A table has room left in its last page, and grows by the next.
      let refused = null
      for (let n = 0; refused === null && n < 2000; n++) {
        const answer = await push(`t${n}`)
        if (answer?.status !== 201) refused = answer
      }
      expect(refused).toMatchObject({ status: 503, headers: { 'retry-after': expect.any(String) } })
      expect((await client.getManifest(repository, 'kept')).body.equals(kept.manifest)).toBe(true)
      expect((await client.getBlob(repository, digestOf(kept.layers[1]!))).body.equals(kept.layers[1]!)).toBe(true)
      expect((await client.send('GET', `/v2/${repository}/tags/list`)).status).toBe(200)
      expect((await client.signIn(repositories)).status).toBe(200)

      // Its log needs a new file as well: then Postgres gives up, and tries again until it can.
      const gaveUp = () =>
        haven.query('select pg_switch_wal(), pg_logical_emit_message(false, $1, $2)', ['a', 'b']).then(
          () => false,
          () => true,
        )
      await until('Postgres gave up', gaveUp, 60_000)
      for (let n = 0; n < 10; n++) await push('none')
      rmSync(filler)
      await until('all is healthy', () => isHealthy(haven, client), 60_000)
      expect((await push('after'))?.status).toBe(201)
      expect(haven.processes()).toMatchObject({ front, back })
      process.stderr.write(`F17: ${JSON.stringify(history.statuses())}\n`)
      // Told to come back: never left without an answer, never told of a bug.
      expect(history.operations.filter(({ result, status }) => result !== 'ok' && status !== 503)).toEqual([])
      expect(await check(history, [client])).toEqual([])
      await haven.query(`update artifacts.uploads set updated_at = now() - interval '2 days', locked_until = now()`)
      expect(await collectGarbage(client)).toBe('Success')
      expect(await disagreements(haven)).toEqual([])
      client.close()
    },
    180_000,
  )

  test(
    titled('is what it was in the instant of a power cut: everything acknowledged before is there (F34)', lack),
    async () => {
      const [image, copy, path] = ['disk.img', 'copy.img', 'crashing'].map((name) => join(folder, name)) as [
        string,
        string,
        string,
      ]
      mkdirSync(path)
      await must('truncate', ['-s', '700M', image])
      await must('mkfs.ext4', ['-q', image])
      // Nothing reaches the disk by itself in the time of this test: only what was synced.
      const mountImage = (file: string) => mount(path, '-o', 'loop,commit=300', file)
      await mountImage(image)
      const home = join(path, 'home')
      await using haven = await startHaven({ env: { REGISTRY_UPLOAD_LEASE: '2s', HAVEN_TRASH: '0s' }, home })
      const client = new Client(haven.url)
      expect((await client.signIn(repositories)).status).toBe(200)
      const load = startLoad(client, 1)
      await until('something is there', () => load.history.of('push manifest', 'ok').length > 30, 60_000)
      // Backends of Postgres name no folder, but work in it.
      const all = [...new Set([...processesOf(home), ...workingIn(home)])]
      for (const pid of all) process.kill(pid, 'SIGSTOP')
      await copyOfAnInstant(path, image, copy)
      for (const pid of all) process.kill(pid, 'SIGKILL')
      await load.stop()
      await unmount(path)
      await mountImage(copy)
      const up = await haven.command('up')
      expect({ ...up, output: up.code === 0 ? '' : up.output }).toEqual({ code: 0, output: '' })
      await until('all is healthy', () => isHealthy(haven, client), 60_000)
      expect((await client.signIn(repositories)).status).toBe(200)
      expect(await check(load.history, [client])).toEqual([])
      await haven.query(`update artifacts.uploads set updated_at = now() - interval '2 days', locked_until = now()`)
      expect(await collectGarbage(client)).toBe('Success')
      expect(await disagreements(haven)).toEqual([])
      client.close()
    },
    240_000,
  )
})

describe('an object of the store (F33)', () => {
  let haven: HavenInstallation
  let client: Client

  beforeAll(async () => {
    haven = await startHaven({ env: { HAVEN_TRASH: '0s' } })
    client = new Client(haven.url)
    expect((await client.signIn(repositories)).status).toBe(200)
  }, 120_000)

  afterAll(async () => {
    client?.close()
    await haven?.[Symbol.asyncDispose]()
  }, 60_000)

  const fileOf = async (digest: string) => {
    const [row] = await haven.query<{ key: string }>(
      'select l.key from artifacts.blobs b join artifacts.blob_locations l on l.blob_id = b.id where b.digest = $1',
      [digest],
    )
    return join(haven.home, 'blobs', row!.key)
  }

  it.each([
    ['is gone', (file: string) => rmSync(file)],
    ['is cut off', (file: string) => truncateSync(file, 500)],
    ['has other bytes', (file: string) => writeFileSync(file, randomBytes(1000))],
  ])('%s while its bytes are in memory: the next push puts them back', async (_, damage) => {
    const bytes = randomBytes(1000)
    const digest = digestOf(bytes)
    expect((await client.pushBlob(repository, bytes)).status).toBe(201)
    expect((await client.getBlob(repository, digest)).body.equals(bytes)).toBe(true)
    const file = await fileOf(digest)
    damage(file)
    expect((await client.pushBlob(repository, bytes)).status).toBe(201)
    expect(await fileOf(digest)).not.toBe(file)
    expect(readFileSync(await fileOf(digest)).equals(bytes)).toBe(true)
    expect(await collectGarbage(client)).toBe('Success')
    expect(await disagreements(haven)).toEqual([])
  })

  it.each([
    ['is gone', (file: string) => rmSync(file)],
    ['is cut off', (file: string) => truncateSync(file, 100_000)],
  ])(
    '%s: no answer looks whole, and the next push brings it back',
    async (_, damage) => {
      const bytes = randomBytes(300_000)
      const digest = digestOf(bytes)
      expect((await client.pushBlob(repository, bytes)).status).toBe(201)
      damage(await fileOf(digest))
      const read = await client.getBlob(repository, digest).catch(() => null)
      expect(read?.status).not.toBe(200)
      // Found by reading it: from then on the client is told to send it again.
      await until(
        'it is known to be damaged',
        async () => (await client.headBlob(repository, digest)).status === 404,
        10_000,
      )
      expect((await client.pushBlob(repository, bytes)).status).toBe(201)
      expect((await client.getBlob(repository, digest)).body.equals(bytes)).toBe(true)
      expect(await collectGarbage(client)).toBe('Success')
      expect(await disagreements(haven)).toEqual([])
    },
    60_000,
  )
})
