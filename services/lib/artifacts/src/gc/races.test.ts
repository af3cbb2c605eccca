// Races R8, R10 and R11 of reliability.md §8; the others are in gc.test.ts.
import { createHash, randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer, get, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals'
import { openDatabase, statement, type Database } from '@haven/db'
import { digestOf, type Digest } from '@haven/oci'
import type { ProjectFacts } from '@haven/projects'
import { MemoryStorage, newObjectKey, openStorage, readStorageConfig, type BlobStorage } from '@haven/storage'
import { testDatabase, type TestDatabase } from '@haven/testkit'
import { FakeS3 } from '@haven/testkit/fake-s3'
import { lacking } from '@haven/testkit/tools'
import { startVersityGw } from '@haven/testkit/versitygw'
import {
  artifactDeps,
  finishUpload,
  getBlob,
  grant,
  interceptFaultPoint,
  startUpload,
  type ArtifactDeps,
  type FaultPoint,
  type Right,
} from '../index.ts'
import { eraseTrash, forgetBlobs, gcDeps, unlinkBlobs, verifyStore, type GcDeps, type GcRun } from './index.ts'

const MiB = 1024 ** 2
const run: GcRun = { executionId: 1, actor: 'gc' }
const settings = { promiseSeconds: 3600, trashSeconds: 0, tombstoneSeconds: 0 }
let database: TestDatabase
let project: ProjectFacts
let storage: MemoryStorage
let artifacts: ArtifactDeps
let gc: GcDeps
let undo: (() => PromiseLike<void> | void)[] = []

beforeAll(async () => {
  database = await testDatabase()
  const { prisma } = database.db
  const { id } = await prisma.project.create({ data: { name: 'library', nameKey: 'library', ownerId: 1 } })
  // Only what the use cases below look at.
  project = { id, name: 'library', registryId: null, metadata: {}, immutableRules: [] } as unknown as ProjectFacts
})
afterAll(async () => database[Symbol.asyncDispose]())
beforeEach(async () => {
  await database.db.prisma
    .$executeRaw`truncate artifacts.repositories, artifacts.blobs, artifacts.uploads, artifacts.trash cascade`
  storage = new MemoryStorage()
  artifacts = artifactDeps({ db: database.db, storage, settings })
  gc = gcDeps({ db: database.db, settings, projects: { byId: async () => project } })
})
afterEach(async () => {
  for (const step of undo.reverse()) await step()
  undo = []
})

const may = <R extends Right>(right: R) =>
  grant(right, {
    project,
    repository: 'app',
    principal: { kind: 'user', id: 1, name: 'ann' },
    requestId: 'r',
    door: 'registry',
  })

async function pushBlob(bytes: Uint8Array): Promise<Digest> {
  const { id } = await startUpload(artifacts, may('push'))
  const digest = digestOf(bytes)
  const chunk = { source: once(bytes), offsetBytes: null, sizeBytes: bytes.length }
  await finishUpload(artifacts, may('push'), id, { digest, chunk })
  return digest
}

/** Puts an object into a store and its key into the trash, due at once. */
async function trashed(store: BlobStorage, bytes: Uint8Array) {
  const key = newObjectKey()
  const { state } = await store.append(key, null, 0, once(bytes), { last: true })
  await store.complete(key, state, bytes.length)
  await database.db.prisma.trashedObject.create({
    data: { key, store: store.name, digest: digestOf(bytes), reason: 'unreferenced', eraseAfter: new Date(0) },
  })
  return key
}

async function* once(bytes: Uint8Array) {
  yield bytes
}

/** What nobody was promised or needs any more leaves the record; its keys are due in the trash. */
async function forget(how: GcDeps = gc): Promise<number> {
  const { prisma } = database.db
  await prisma.$executeRaw`update artifacts.blobs set promised_until = now() - interval '1 hour'`
  await prisma.$executeRaw`update artifacts.blob_links set promised_until = now() - interval '1 hour'`
  await unlinkBlobs(how, run)
  return (await forgetBlobs(how, run)).count
}

async function pull(digest: Digest): Promise<Buffer | null> {
  const found = await getBlob(artifacts, may('pull'), digest).catch(() => null)
  return found && Buffer.concat(await storage.read(found.key).toArray())
}

async function disagreements() {
  const found = []
  for await (const { finding } of verifyStore(database.db, storage, { orphanAgeMs: -1, deep: true })) {
    if (finding) found.push(finding)
  }
  return found
}

/** Holds whoever comes first to `point` until `release`, and says when somebody came. */
function stopAt(point: FaultPoint) {
  const arrived = Promise.withResolvers<void>()
  const released = Promise.withResolvers<void>()
  let first = true
  const end = interceptFaultPoint(point, async () => {
    if (!first) return
    first = false
    arrived.resolve()
    await released.promise
  })
  undo.push(end, () => released.resolve())
  return { arrived: arrived.promise, release: () => released.resolve() }
}

describe('R8: a pull is under way while the object is erased', () => {
  const bytes = randomBytes(32 * MiB)
  const whole = createHash('sha256').update(bytes).digest('hex')

  /** Serves objects as the door and the registry do: whole, or cut off. */
  async function serve(store: BlobStorage): Promise<string> {
    const server = createServer((req, res) => {
      res.setHeader('Content-Length', bytes.length)
      store.send(req.url!.slice(1), { offset: 0, length: bytes.length }, res).then(
        () => res.end(),
        () => res.destroy(),
      )
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    undo.push(() => {
      server.closeAllConnections()
      server.close()
    })
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}/`
  }

  /** Reads the beginning of an answer, lets `meanwhile` happen, and reads on. */
  async function readAround(url: string, meanwhile: () => Promise<unknown>): Promise<'whole' | 'reset' | 'short'> {
    const res = await new Promise<IncomingMessage>((resolve, reject) => get(url, resolve).once('error', reject))
    const hash = createHash('sha256')
    let read = 0
    const take = (chunk: Buffer) => {
      hash.update(chunk)
      read += chunk.length
    }
    await new Promise<void>((resolve) => {
      res.once('data', (chunk: Buffer) => {
        res.pause()
        take(chunk)
        resolve()
      })
    })
    expect(read).toBeLessThan(bytes.length / 2)
    await meanwhile()
    return new Promise((resolve) => {
      res.on('data', take)
      res.once('end', () => resolve(hash.digest('hex') === whole ? 'whole' : 'short'))
      res.once('error', () => resolve('reset'))
      res.resume()
    })
  }

  const eraseFrom = async (store: BlobStorage) =>
    expect(await eraseTrash(database.db, store)).toMatchObject({ erased: 1, failed: 0 })

  it('files: the reader has the file open and gets all of it', async () => {
    const path = await mkdtemp(join(tmpdir(), 'haven-r8-'))
    undo.push(() => rm(path, { recursive: true }))
    const store = await openStorage(readStorageConfig({ STORAGE_PATH: path }))
    undo.push(() => store[Symbol.asyncDispose]())
    const key = await trashed(store, bytes)
    expect(await readAround((await serve(store)) + key, () => eraseFrom(store))).toBe('whole')
    expect(await store.stat(key)).toBeNull()
  })

  const s3 = async ({ endpoint, accessKey, secretKey }: Record<'endpoint' | 'accessKey' | 'secretKey', string>) => {
    const env = { S3_ENDPOINT: endpoint, S3_ACCESS_KEY: accessKey, S3_SECRET_KEY: secretKey }
    const store = await openStorage(readStorageConfig(env))
    undo.push(() => store[Symbol.asyncDispose]())
    return store
  }

  const lack = lacking('versitygw')
  const onRealS3 = lack ? it.skip : it
  onRealS3(`S3: what the store goes on sending is all of it${lack ? ` (${lack})` : ''}`, async () => {
    const server = await startVersityGw()
    undo.push(() => server[Symbol.asyncDispose]())
    const store = await s3(server)
    const key = await trashed(store, bytes)
    const outcome = await readAround((await serve(store)) + key, () => eraseFrom(store))
    expect(outcome).toBe('whole')
    expect(await store.stat(key)).toBeNull()
  })

  it('S3: when the rest cannot be had any more the client is cut off, and the store is not asked for ever', async () => {
    const fake = await FakeS3.start()
    undo.push(() => fake[Symbol.asyncDispose]())
    const store = await s3({ endpoint: fake.endpoint, accessKey: 'key', secretKey: 'secret' })
    const key = await trashed(store, bytes)
    fake.reset()
    fake.fail('GetObject', 'truncated')
    let erased = false
    fake.gate = async (operation) => {
      // The driver asks for the rest; by then the object is gone.
      if (operation !== 'GetObject' || fake.requests.get('GetObject') !== 2 || erased) return
      erased = true
      await eraseFrom(store)
    }
    expect(await readAround((await serve(store)) + key, async () => {})).toBe('reset')
    expect(erased).toBe(true)
    expect(fake.requests.get('GetObject')).toBe(2)
  })
})

describe('R10: a worker is paused between its check and its act', () => {
  /** A pool whose transactions may idle for 300 ms, so that the test need not wait for the 15 s of the default. */
  function impatient(): Database {
    const url = new URL(database.url)
    url.searchParams.set('options', '-c idle_in_transaction_session_timeout=300')
    const db = openDatabase({ url: url.href, applicationName: 'paused worker', poolSize: 2 })
    undo.push(() => db[Symbol.asyncDispose]())
    return db
  }

  it('every transaction of ours is ended when it idles for 15 s', async () => {
    const show = statement<{ idle_in_transaction_session_timeout: string }>(
      'show idle',
      'show idle_in_transaction_session_timeout',
    )
    const shown = await database.db.transaction((tx) => tx.one(show, []))
    expect(shown).toEqual({ idle_in_transaction_session_timeout: '15s' })
  })

  it('with its rows locked: Postgres ends it, the push that waited goes on, and what it had decided does not happen', async () => {
    const bytes = randomBytes(1000)
    const digest = await pushBlob(bytes)
    const before = await getBlob(artifacts, may('pull'), digest)
    const locked = stopAt('gc.locked')
    // Straight to the blob: the link is gone, as after an earlier phase of the run.
    const { prisma } = database.db
    await prisma.$executeRaw`delete from artifacts.blob_links`
    await prisma.$executeRaw`update artifacts.blobs set promised_until = now() - interval '1 hour'`
    const paused = forgetBlobs({ ...gc, db: impatient() }, run).then(
      () => 'it went on',
      (error: Error) => error.message,
    )
    await locked.arrived
    expect(await pushBlob(bytes)).toBe(digest) // waits for the lock of the paused one, and no longer
    locked.release()
    expect(await paused).not.toBe('it went on')
    expect(await pull(digest)).toEqual(bytes)
    const after = await getBlob(artifacts, may('pull'), digest)
    expect(after.key).toBe(before.key)
    const inTrash = await prisma.trashedObject.findMany({ select: { key: true } })
    expect(inTrash.map(({ key }) => key)).not.toContain(after.key)
    await eraseTrash(database.db, storage)
    expect(await disagreements()).toEqual([])
  })

  it('before its locks: it looks again, and passes over what was pushed meanwhile', async () => {
    const bytes = randomBytes(1000)
    const digest = await pushBlob(bytes)
    await database.db.prisma.$executeRaw`delete from artifacts.blob_links`
    await database.db.prisma.$executeRaw`update artifacts.blobs set promised_until = now() - interval '1 hour'`
    const candidates = stopAt('gc.candidates')
    const paused = forgetBlobs({ ...gc, db: impatient() }, run)
    await candidates.arrived
    await pushBlob(bytes)
    candidates.release()
    expect(await paused).toEqual({ count: 0, bytes: 0 })
    expect(await pull(digest)).toEqual(bytes)
  })

  it('with a task that is another worker’s by now: its fence undoes what it did', async () => {
    const digest = await pushBlob(randomBytes(1000))
    const locked = stopAt('gc.locked')
    let mine = true
    const fenced: GcRun = {
      ...run,
      hold: async () => {
        if (!mine) throw new Error('the lease is lost')
      },
    }
    await database.db.prisma.$executeRaw`delete from artifacts.blob_links`
    await database.db.prisma.$executeRaw`update artifacts.blobs set promised_until = now() - interval '1 hour'`
    const paused = forgetBlobs(gc, fenced)
    await locked.arrived
    mine = false
    locked.release()
    await expect(paused).rejects.toThrow('the lease is lost')
    expect(await database.db.prisma.blob.count({ where: { digest } })).toBe(1)
    expect(await database.db.prisma.trashedObject.count()).toBe(0)
  })

  it('with keys it took to erase: another erases them, the digest is pushed again, and the late erase hits nothing', async () => {
    const bytes = randomBytes(1000)
    const digest = await pushBlob(bytes)
    expect(await forget()).toBe(1)
    const taken = stopAt('gc.beforeErase')
    const paused = eraseTrash(database.db, storage)
    await taken.arrived
    await database.db.prisma.$executeRaw`update artifacts.trash set erase_after = now() - interval '1 second'`
    expect(await eraseTrash(database.db, storage)).toMatchObject({ erased: 1 })
    await pushBlob(bytes)
    taken.release()
    expect(await paused).toMatchObject({ failed: 0 })
    expect(await pull(digest)).toEqual(bytes)
    expect(await disagreements()).toEqual([])
  })
})

describe('R11: a backup copies objects', () => {
  const lock = statement('backup lock', `select pg_advisory_lock(hashtext('haven.backup'))::text`)

  const unlock = statement('backup unlock', `select pg_advisory_unlock(hashtext('haven.backup'))`)

  /** As deploy/backup.md says: the lock in a session of its own. Returns how to end the backup. */
  async function beginBackup(): Promise<() => Promise<unknown>> {
    const session = openDatabase({ url: database.url, applicationName: 'backup', poolSize: 1 })
    undo.push(() => session[Symbol.asyncDispose]())
    await session.writes.rows(lock, [])
    return () => session.writes.rows(unlock, [])
  }
  const objects = async () => {
    const keys: string[] = []
    for await (const { key } of storage.list()) keys.push(key)
    return keys
  }

  it('nothing is erased until it has ended, and then everything that is due', async () => {
    await Promise.all([trashed(storage, randomBytes(10)), trashed(storage, randomBytes(10))])
    const endBackup = await beginBackup()
    const waiting = { erased: 0, failed: 0, remaining: 2, held: true }
    expect(await eraseTrash(database.db, storage, { workers: 3 })).toMatchObject(waiting)
    expect(await database.db.prisma.trashedObject.findMany({ select: { attempts: true } })).toEqual([
      { attempts: 0 },
      { attempts: 0 },
    ])
    await endBackup()
    expect(await eraseTrash(database.db, storage)).toMatchObject({ erased: 2, remaining: 0, held: false })
  })

  it('a backup that was killed holds nothing', async () => {
    await trashed(storage, randomBytes(10))
    await beginBackup()
    await database.db.prisma.$executeRaw`
      select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'backup' and datname = current_database()`
    for (let held = true; held;) held = (await eraseTrash(database.db, storage)).held
    expect(await objects()).toEqual([])
  })

  it('begun while an eraser is at work: what it had taken goes, nothing that the backup found recorded does', async () => {
    const old = await trashed(storage, randomBytes(10))
    const bytes = randomBytes(1000)
    const digest = await pushBlob(bytes)
    const { key } = await getBlob(artifacts, may('pull'), digest)
    const taken = stopAt('gc.beforeErase')
    const erasing = eraseTrash(database.db, storage, { workers: 2 })
    await taken.arrived
    const endBackup = await beginBackup()
    const recorded = (await database.db.prisma.blobLocation.findMany({ select: { key: true } })).map((row) => row.key)
    expect(recorded).toEqual([key])
    expect(await forget()).toBe(1) // into the trash, and due at once
    taken.release()
    expect(await erasing).toMatchObject({ erased: 1, remaining: 1, held: true })
    expect(await objects()).toEqual([key])
    expect(await storage.stat(old)).toBeNull()
    expect(Buffer.concat(await storage.read(key).toArray())).toEqual(bytes)
    await endBackup()
    expect(await eraseTrash(database.db, storage)).toMatchObject({ erased: 1, held: false })
  })
})
