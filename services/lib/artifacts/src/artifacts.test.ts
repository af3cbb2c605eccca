import { createHash, randomBytes, randomUUID } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, jest } from '@jest/globals'
import { statement } from '@haven/db'
import { problems } from '@haven/errors'
import { ensurePresets } from '@haven/identity'
import { digestOf, parseTag, type Digest } from '@haven/oci'
import { charge, createProject, deleteProject, ProjectDirectory, type ProjectFacts } from '@haven/projects'
import { FileStorage, MemoryStorage, type BlobStorage } from '@haven/storage'
import { testDatabase, type TestDatabase } from '@haven/testkit'
import {
  appendToUpload,
  artifactDeps,
  deleteBlob,
  deleteManifest,
  deleteTag,
  expireUploads,
  finishUpload,
  getBlob,
  getManifest,
  grant,
  hasRepositories,
  headBlobForPush,
  interceptFaultPoint,
  listTags,
  mountBlob,
  PullCounter,
  putManifest,
  startUpload,
  uploadStatus,
  type ArtifactDeps,
  type ArtifactPolicies,
  type ArtifactSettings,
  type FaultPoint,
  type PushGrant,
} from './index.ts'
import { claimUpload, recordUpload, releaseUpload } from './store/uploads.ts'

let database: TestDatabase
let project: ProjectFacts
const folder = mkdtempSync(join(tmpdir(), 'haven-artifacts-'))

beforeAll(async () => {
  database = await testDatabase()
  await ensurePresets(database.db)
  using directory = new ProjectDirectory(database.db)
  const source = { principal: { kind: 'user' as const, id: 1, name: 'ann' } }
  await createProject({ db: database.db, directory }, source, { name: 'acme', ownerId: 1 })
  project = (await directory.byName('acme'))!
})
afterAll(async () => {
  await database[Symbol.asyncDispose]()
  rmSync(folder, { recursive: true, force: true })
})

type Options = {
  db?: ArtifactDeps['db']
  storage?: BlobStorage
  settings?: Partial<ArtifactSettings>
  policies?: ArtifactPolicies
}
const replica = (options: Options = {}) =>
  artifactDeps({
    db: database.db,
    storage: options.storage ?? new MemoryStorage(),
    policies: { quota: charge },
    ...options,
  })

const facts = (repository: string, user = 1) => ({
  project,
  repository,
  principal: { kind: 'user' as const, id: user, name: `user${user}` },
  requestId: 'r1',
  door: 'registry' as const,
})
const pushing = (repository: string, user?: number) => grant('push', facts(repository, user))
const pulling = (repository: string) => grant('pull', facts(repository))
const deleting = (repository: string) => grant('delete', facts(repository))

async function* inPieces(bytes: Uint8Array, size = 64 * 1024) {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
}
const chunk = (bytes: Uint8Array, offsetBytes: number | null = null) => ({
  source: inPieces(bytes),
  offsetBytes,
  sizeBytes: bytes.length,
})

async function pushBlob(deps: ArtifactDeps, to: PushGrant, bytes: Uint8Array): Promise<Digest> {
  const { id } = await startUpload(deps, to)
  const digest = digestOf(bytes)
  await finishUpload(deps, to, id, { digest, chunk: chunk(bytes) })
  return digest
}

const tag = (name: string) => ({ tag: parseTag(name)! })

const mediaType = 'application/vnd.oci.image.manifest.v1+json'

function manifestOf(config: Buffer, layer: Buffer): Buffer {
  const descriptor = (bytes: Buffer, type: string) => ({ mediaType: type, digest: digestOf(bytes), size: bytes.length })
  return Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      config: descriptor(config, 'application/vnd.oci.image.config.v1+json'),
      layers: [descriptor(layer, 'application/vnd.oci.image.layer.v1.tar')],
    }),
  )
}

async function image(deps: ArtifactDeps, to: PushGrant) {
  const [config, layer] = [Buffer.from(JSON.stringify({ id: randomUUID() })), randomBytes(500)]
  for (const bytes of [config, layer]) await pushBlob(deps, to, bytes)
  const body = manifestOf(config, layer)
  return { body, digest: digestOf(body), layer: digestOf(layer) }
}

async function bytesOf(deps: ArtifactDeps, repository: string, digest: Digest): Promise<string> {
  const { key, sizeBytes } = await getBlob(deps, pulling(repository), digest)
  const hash = createHash('sha256')
  await deps.storage.send(key, { offset: 0, length: sizeBytes }, hash)
  return `sha256:${hash.digest('hex')}`
}

/** Holds whoever comes first to a fault point. `reached` resolves when somebody is there; `release` lets him go on. */
function hold(point: FaultPoint) {
  const arrived = Promise.withResolvers<void>()
  const permission = Promise.withResolvers<void>()
  const stop = interceptFaultPoint(point, () => {
    stop()
    arrived.resolve()
    return permission.promise
  })
  return { reached: arrived.promise, release: () => permission.resolve() }
}

const settled = async (work: Promise<unknown>, ms = 150) =>
  Promise.race([
    work.then(
      () => true,
      () => true,
    ),
    new Promise<boolean>((resolve) => setTimeout(resolve, ms, false)),
  ])

const outcome = (work: Promise<unknown>) =>
  work.then(
    () => 'done',
    (error: unknown) => (error as { kind?: { name: string } }).kind?.name ?? String(error),
  )

const exec = (text: string) => database.db.writes.rows(statement(randomUUID(), text), [])

describe('one upload, several writers', () => {
  it('lets exactly one of two writers have each offset, and never mixes their bytes (F05)', async () => {
    const storage = new MemoryStorage()
    const replicas = [replica({ storage }), replica({ storage })]
    for (let race = 0; race < 25; race++) {
      const bytes = randomBytes(4000)
      const { id } = await startUpload(replicas[0]!, pushing('fenced'))
      for (const offset of [0, 2000]) {
        const part = bytes.subarray(offset, offset + 2000)
        const ends = await Promise.all(
          replicas.map((deps) => outcome(appendToUpload(deps, pushing('fenced'), id, chunk(part, offset)))),
        )
        expect(ends.sort()).toEqual(['done', 'rangeInvalid'])
      }
      const finishing = replicas.map((deps) =>
        outcome(finishUpload(deps, pushing('fenced'), id, { digest: digestOf(bytes), chunk: null })),
      )
      expect((await Promise.all(finishing)).sort()).toEqual(['blobUploadUnknown', 'done'])
      expect(await bytesOf(replicas[0]!, 'fenced', digestOf(bytes))).toBe(digestOf(bytes))
    }
    expect(await database.db.prisma.upload.count({ where: { path: 'fenced' } })).toBe(0)
  })

  it.each([
    ['files', () => FileStorage.open(join(folder, randomUUID()))],
    ['memory', async () => new MemoryStorage()],
  ])('takes over from a writer that died, and refuses what it still writes (%s)', async (_name, openStorage) => {
    await using storage = await openStorage()
    const deps = replica({ storage, settings: { uploadLeaseSeconds: 1 } })
    const [first, second] = [randomBytes(1000), randomBytes(1000)]
    const { id } = await startUpload(deps, pushing('taken'))
    await appendToUpload(deps, pushing('taken'), id, chunk(first, 0))

    const owner = { id, projectId: project.id, path: 'taken', principal: 'user:1' }
    const dead = (await claimUpload(database.db.writes, owner, 1, 1000))!
    expect(await outcome(appendToUpload(deps, pushing('taken'), id, chunk(second, 1000)))).toBe('done')
    expect(await recordUpload(database.db.writes, dead, 9999, null)).toBe(false)
    expect(await uploadStatus(deps, pushing('taken'), id)).toEqual({ offsetBytes: 2000 })

    const whole = Buffer.concat([first, second])
    await finishUpload(deps, pushing('taken'), id, { digest: digestOf(whole), chunk: null })
    expect(await bytesOf(deps, 'taken', digestOf(whole))).toBe(digestOf(whole))
  })

  it('is free in the very instant in which it was given back, whatever that instant is rounded to', async () => {
    const deps = replica()
    const owner = { projectId: project.id, path: 'instant', principal: 'user:1' }
    for (let n = 0; n < 20; n++) {
      const { id } = await startUpload(deps, pushing('instant'))
      const claimed = await database.db.transaction(async (tx) => {
        const first = await claimUpload(tx, { ...owner, id }, 10, 0)
        await releaseUpload(tx, first!)
        return claimUpload(tx, { ...owner, id }, 10, 0)
      })
      expect(claimed?.fence).toBe(2)
    }
  })

  it('is as it was after a chunk that fails, and keeps its sum', async () => {
    const deps = replica()
    const bytes = randomBytes(3000)
    const { id } = await startUpload(deps, pushing('failing'))
    await appendToUpload(deps, pushing('failing'), id, chunk(bytes.subarray(0, 1000)))
    async function* broken() {
      yield bytes.subarray(1000, 2000)
      throw problems.blobUploadInvalid({ reason: 'the body ended early' })
    }
    const failing = { source: broken(), offsetBytes: 1000, sizeBytes: null }
    expect(await outcome(appendToUpload(deps, pushing('failing'), id, failing))).toBe('blobUploadInvalid')
    const short = { ...chunk(bytes.subarray(1000, 1500)), sizeBytes: 600 }
    expect(await outcome(appendToUpload(deps, pushing('failing'), id, short))).toBe('sizeInvalid')
    expect(await uploadStatus(deps, pushing('failing'), id)).toEqual({ offsetBytes: 1000 })
    expect(await deps.hashes.take(id, 1000, 'sha256')?.digest()).toBe(
      createHash('sha256').update(bytes.subarray(0, 1000)).digest('hex'),
    )
  })

  it('begins again when its bytes are lost, instead of failing for ever', async () => {
    const deps = replica({ storage: new MemoryStorage() })
    const { id } = await startUpload(deps, pushing('lost'))
    await appendToUpload(deps, pushing('lost'), id, chunk(randomBytes(10)))
    const emptied = replica({ storage: new MemoryStorage() })
    expect(await outcome(appendToUpload(emptied, pushing('lost'), id, chunk(randomBytes(10))))).toBe(
      'blobUploadUnknown',
    )
    expect(await database.db.prisma.upload.findUnique({ where: { id } })).toBeNull()
  })

  it('belongs to who opened it, where it was opened (A29)', async () => {
    const deps = replica()
    const { id } = await startUpload(deps, pushing('owned'))
    for (const other of [pushing('owned', 2), pushing('elsewhere')]) {
      expect(await outcome(uploadStatus(deps, other, id))).toBe('blobUploadUnknown')
      expect(await outcome(appendToUpload(deps, other, id, chunk(randomBytes(1))))).toBe('blobUploadUnknown')
      expect(await outcome(finishUpload(deps, other, id, { digest: digestOf(''), chunk: null }))).toBe(
        'blobUploadUnknown',
      )
    }
    expect(await outcome(finishUpload(deps, pushing('owned'), id, { digest: digestOf(''), chunk: null }))).toBe('done')
  })

  it('expires when nobody touched it, with what the eraser needs', async () => {
    const deps = replica()
    const [old, young] = [await startUpload(deps, pushing('expiring')), await startUpload(deps, pushing('expiring'))]
    await appendToUpload(deps, pushing('expiring'), old.id, chunk(randomBytes(100)))
    await exec(`update artifacts.uploads set updated_at = now() - interval '2 hours' where id = '${old.id}'`)
    expect(await expireUploads(deps, 3600)).toBe(1)
    expect(await outcome(uploadStatus(deps, pushing('expiring'), old.id))).toBe('blobUploadUnknown')
    expect(await outcome(uploadStatus(deps, pushing('expiring'), young.id))).toBe('done')
    expect(await database.db.prisma.trashedObject.findFirst({ where: { reason: 'upload expired' } })).toMatchObject({
      sizeBytes: 100n,
      state: expect.anything(),
    })
  })
})

describe('a failure between any two steps of a push (F01)', () => {
  const points: FaultPoint[] = [
    'session.create',
    'chunk.beforeStage',
    'chunk.afterStage',
    'chunk.afterDb',
    'finish.beforeHash',
    'finish.afterVerify',
    'finish.afterMove',
    'finish.beforeDb',
    'finish.afterDb',
    'manifest.beforeDb',
    'manifest.afterCheck',
    'manifest.afterDb',
  ]

  it.each(points)('%s: nothing is half there, and the same push again succeeds', async (point) => {
    await using storage = await FileStorage.open(join(folder, randomUUID()))
    const deps = replica({ storage })
    const to = pushing(`faults/${point.toLowerCase()}`)
    const config = Buffer.from(JSON.stringify({ point }))
    const layer = randomBytes(100_000)
    const body = manifestOf(config, layer)
    const push = async () => {
      for (const bytes of [config, layer]) {
        const { id } = await startUpload(deps, to)
        await appendToUpload(deps, to, id, chunk(bytes.subarray(0, 10), 0))
        await appendToUpload(deps, to, id, chunk(bytes.subarray(10), 10))
        await finishUpload(deps, to, id, { digest: digestOf(bytes), chunk: null })
      }
      await putManifest(deps, to, { reference: tag('v1'), mediaType, body })
    }
    const stop = interceptFaultPoint(point, () => Promise.reject(new Error(`fault at ${point}`)))
    expect(await outcome(push())).toBe(`Error: fault at ${point}`)
    stop()

    await push()
    for (const bytes of [config, layer])
      expect(await bytesOf(deps, to.repository, digestOf(bytes))).toBe(digestOf(bytes))
    expect((await getManifest(deps, pulling(to.repository), tag('v1'))).payload.equals(body)).toBe(true)
    // Every object of the store is a blob's, or is known to the eraser or to an upload that expires.
    for await (const { key } of storage.list()) {
      const [blob, trashed, upload] = await Promise.all([
        database.db.prisma.blobLocation.count({ where: { key } }),
        database.db.prisma.trashedObject.count({ where: { key } }),
        database.db.prisma.upload.count({ where: { key } }),
      ])
      expect(blob + trashed + upload).toBe(1)
    }
  })

  it('goes on at the last acknowledged byte after a chunk that was written but not recorded (F03)', async () => {
    await using storage = await FileStorage.open(join(folder, randomUUID()))
    const deps = replica({ storage })
    const bytes = randomBytes(3000)
    const { id } = await startUpload(deps, pushing('resumed'))
    await appendToUpload(deps, pushing('resumed'), id, chunk(bytes.subarray(0, 1000), 0))
    const stop = interceptFaultPoint('chunk.afterStage', () => Promise.reject(new Error('killed')))
    expect(await outcome(appendToUpload(deps, pushing('resumed'), id, chunk(bytes.subarray(1000, 2000), 1000)))).toBe(
      'Error: killed',
    )
    stop()
    expect(await uploadStatus(deps, pushing('resumed'), id)).toEqual({ offsetBytes: 1000 })
    const again = replica({ storage })
    await appendToUpload(again, pushing('resumed'), id, chunk(bytes.subarray(1000), 1000))
    await finishUpload(again, pushing('resumed'), id, { digest: digestOf(bytes), chunk: null })
    expect(await bytesOf(again, 'resumed', digestOf(bytes))).toBe(digestOf(bytes))
  })
})

describe('the sum of an upload', () => {
  it('is made here as long as uploads come alone, on another thread since two met, and is right', async () => {
    await using storage = await FileStorage.open(join(folder, randomUUID()))
    const deps = replica({ storage })
    const to = pushing('summed')
    const aside = jest.spyOn(deps.hashes, 'take')
    const [slow, quick, later] = [randomBytes(200_000), randomBytes(200_000), randomBytes(200_000)]
    const rest = Promise.withResolvers<void>()
    async function* halting() {
      yield slow.subarray(0, 1000)
      await rest.promise
      yield slow.subarray(1000)
    }
    const { id } = await startUpload(deps, to)
    const sent = { ...chunk(slow), source: halting() }
    const ending = finishUpload(deps, to, id, { digest: digestOf(slow), chunk: sent })
    while (deps.hashes.summing === 0) await new Promise(setImmediate)
    await pushBlob(deps, to, quick)
    rest.resolve()
    await ending
    await pushBlob(deps, to, later)
    expect(aside.mock.calls.map((given) => given[3])).toEqual([false, true, true])
    for (const bytes of [slow, quick, later])
      expect(await bytesOf(deps, 'summed', digestOf(bytes))).toBe(digestOf(bytes))
  })
})

describe('the same blob from many sides', () => {
  it('is stored and counted once when 32 clients push it at once (F06)', async () => {
    const deps = replica({ settings: { maxUploadsPerPrincipal: 1000 } })
    const bytes = randomBytes(200_000)
    const repositories = ['crowd/a', 'crowd/b', 'crowd/c']
    const before = await usage()
    await Promise.all(
      Array.from({ length: 32 }, (_, client) => pushBlob(deps, pushing(repositories[client % 3]!), bytes)),
    )
    const digest = digestOf(bytes)
    const blob = await database.db.prisma.blob.findUniqueOrThrow({
      where: { digest },
      include: { locations: true, links: true },
    })
    expect(blob.locations).toHaveLength(1)
    expect(blob.links).toHaveLength(3)
    // Nobody can be reading them: due at once.
    const due = { digest, reason: 'duplicate', eraseAfter: { lte: new Date() } }
    expect(await database.db.prisma.trashedObject.count({ where: due })).toBe(31)
    expect((await usage()) - before).toBe(bytes.length)
    for (const repository of repositories) expect(await bytesOf(deps, repository, digest)).toBe(digest)
  })

  it('replaces an object that was found damaged', async () => {
    const deps = replica()
    const bytes = randomBytes(1000)
    const digest = await pushBlob(deps, pushing('damaged'), bytes)
    const { key } = await getBlob(deps, pulling('damaged'), digest)
    await exec(`update artifacts.blobs set damaged_at = now() where digest = '${digest}'`)
    expect(await outcome(getBlob(deps, pulling('damaged'), digest))).toBe('blobUnknown')
    expect(await outcome(headBlobForPush(deps, pushing('damaged'), digest))).toBe('blobUnknown')
    await pushBlob(deps, pushing('damaged'), bytes)
    expect((await getBlob(deps, pulling('damaged'), digest)).key).not.toBe(key)
    expect(await bytesOf(deps, 'damaged', digest)).toBe(digest)
    expect(await database.db.prisma.trashedObject.findUnique({ where: { key } })).toMatchObject({ reason: 'damaged' })
  })

  it('is only seen through a repository that has it (A28)', async () => {
    const deps = replica()
    const digest = await pushBlob(deps, pushing('tenant/one'), randomBytes(100))
    await pushBlob(deps, pushing('tenant/two'), randomBytes(100))
    expect(await outcome(getBlob(deps, pulling('tenant/two'), digest))).toBe('blobUnknown')
    expect(await outcome(headBlobForPush(deps, pushing('tenant/two'), digest))).toBe('blobUnknown')
    expect(await mountBlob(deps, pushing('tenant/two'), pulling('tenant/three'), digest)).toBeNull()
    expect(await mountBlob(deps, pushing('tenant/two'), pulling('tenant/one'), digest)).toEqual({ sizeBytes: 100 })
    expect(await outcome(getBlob(deps, pulling('tenant/two'), digest))).toBe('done')
  })

  it('is kept by a HEAD that may push, unless it is just being forgotten', async () => {
    const deps = replica()
    const digest = await pushBlob(deps, pushing('promised'), randomBytes(100))
    const promisedUntil = async () => {
      const { promisedUntil: blob, links } = await database.db.prisma.blob.findUniqueOrThrow({
        where: { digest },
        include: { links: true },
      })
      return Math.min(blob.getTime(), ...links.map((link) => link.promisedUntil.getTime())) - Date.now()
    }
    const endPromise = async () => {
      await exec(`update artifacts.blobs set promised_until = now() - interval '1 s' where digest = '${digest}'`)
      await exec(`update artifacts.blob_links set promised_until = now() - interval '1 s'`)
    }
    await endPromise()
    await getBlob(deps, pulling('promised'), digest)
    expect(await promisedUntil()).toBeLessThan(0)
    await headBlobForPush(deps, pushing('promised'), digest)
    expect(await promisedUntil()).toBeGreaterThan(7_000_000)

    await endPromise()
    let head: Promise<string> | undefined
    await database.db.transaction(async (tx) => {
      await tx.rows(statement('test forget', 'delete from artifacts.blobs where digest = $1'), [digest])
      head = outcome(headBlobForPush(deps, pushing('promised'), digest))
      expect(await settled(head)).toBe(false)
    })
    expect(await head).toBe('blobUnknown')
  })
})

describe('manifests while others push and delete', () => {
  it('keeps a blob that a manifest is about to refer to (F09)', async () => {
    const deps = replica()
    const { body, layer } = await image(deps, pushing('racing/one'))
    const held = hold('manifest.afterCheck')
    const put = putManifest(deps, pushing('racing/one'), { reference: tag('v1'), mediaType, body })
    await held.reached
    const removal = outcome(deleteBlob(deps, deleting('racing/one'), layer))
    expect(await settled(removal)).toBe(false)
    held.release()
    await put
    expect(await removal).toBe('stillReferenced')
  })

  it('refuses the manifest whose blob is just being deleted (F09)', async () => {
    const deps = replica()
    const { body, layer } = await image(deps, pushing('racing/two'))
    const held = hold('blob.beforeUnlink')
    const removal = deleteBlob(deps, deleting('racing/two'), layer)
    await held.reached
    const put = outcome(putManifest(deps, pushing('racing/two'), { reference: tag('v1'), mediaType, body }))
    expect(await settled(put)).toBe(false)
    held.release()
    await removal
    expect(await put).toBe('manifestBlobUnknown')
  })

  it('shows in each process at once what another did to a manifest whose bytes are in its memory', async () => {
    const storage = new MemoryStorage()
    const [here, elsewhere] = [replica({ storage }), replica({ storage })]
    const name = 'remembered'
    const [first, second] = [await image(here, pushing(name)), await image(here, pushing(name))]
    const point = ({ body }: { body: Buffer }) =>
      putManifest(elsewhere, pushing(name), { reference: tag('v1'), mediaType, body })
    const payload = async (reference: Parameters<typeof getManifest>[2]) =>
      (await getManifest(here, pulling(name), reference)).payload.toString()
    for (const { body } of [first, second, first]) {
      await point({ body })
      for (let n = 0; n < 2; n++) expect(await payload(tag('v1'))).toBe(body.toString())
    }
    await deleteManifest(elsewhere, deleting(name), first.digest)
    expect(await outcome(payload(tag('v1')))).toBe('manifestUnknown')
    expect(await outcome(payload({ digest: first.digest }))).toBe('manifestUnknown')
    // Another repository has no right to what is remembered of this one.
    await pushBlob(here, pushing('beside'), randomBytes(10))
    expect(await outcome(getManifest(here, pulling('beside'), { digest: second.digest }))).toBe('manifestUnknown')
  })

  it('keeps a chain of history when 32 clients move one tag (F07)', async () => {
    const deps = replica({ settings: { maxUploadsPerPrincipal: 1000 } })
    const images = await Promise.all(Array.from({ length: 16 }, () => image(deps, pushing('contested'))))
    const known = new Set(images.map(({ digest }) => digest))
    let done = false
    const reading = (async () => {
      for (let reads = 0; ; reads++) {
        const seen = await getManifest(deps, pulling('contested'), tag('latest')).catch(() => null)
        if (seen) expect(known.has(seen.digest as Digest)).toBe(true)
        if (done) return reads
      }
    })()
    await Promise.all(
      [...images, ...images].map(({ body }) =>
        putManifest(deps, pushing('contested'), { reference: tag('latest'), mediaType, body }),
      ),
    )
    done = true
    expect(await reading).toBeGreaterThan(0)
    const history = await database.db.prisma.tagHistory.findMany({
      where: { tag: 'latest', repositoryId: await idOf('contested') },
      orderBy: { id: 'asc' },
    })
    history.forEach((change, at) => expect(change.fromDigest).toBe(history[at - 1]?.toDigest ?? null))
    const now = await getManifest(deps, pulling('contested'), tag('latest'))
    expect(now.digest).toBe(history.at(-1)!.toDigest)
    for (const { digest } of images)
      expect((await getManifest(deps, pulling('contested'), { digest })).digest).toBe(digest)
  })

  it('makes one repository of 64 first pushes (F08)', async () => {
    const deps = replica({ settings: { maxUploadsPerPrincipal: 1000 } })
    await Promise.all(
      Array.from({ length: 64 }, async (_, client) => {
        const { body } = await image(deps, pushing('new/here'))
        await putManifest(deps, pushing('new/here'), { reference: tag(`v${client}`), mediaType, body })
      }),
    )
    expect(await database.db.prisma.repository.count({ where: { path: 'new/here' } })).toBe(1)
    expect((await listTags(deps, pulling('new/here'), { after: null, limit: 100 })).tags).toHaveLength(64)
  })

  it('obeys immutability, quota, read-only mode and the gate on pulls', async () => {
    const immutable = ({ tag: name }: { tag: string }) => ({ allowed: name !== 'fixed', reasons: [] })
    const deps = replica({
      policies: {
        immutability: (_grant, name) => immutable({ tag: name }),
        pullGate: () => ({ allowed: false, reasons: [{ message: 'not signed' }] }),
      },
    })
    const { body, digest } = await image(deps, pushing('ruled'))
    const put = (name: string) =>
      outcome(putManifest(deps, pushing('ruled'), { reference: tag(name), mediaType, body }))
    expect([await put('fixed'), await put('free'), await put('free'), await put('fixed')]).toEqual([
      'done',
      'done',
      'done',
      'tagImmutable',
    ])
    expect(await outcome(deleteTag(deps, deleting('ruled'), parseTag('fixed')!))).toBe('tagUndeletable')
    expect(await outcome(deleteManifest(deps, deleting('ruled'), digest))).toBe('tagUndeletable')
    expect(await outcome(getManifest(deps, pulling('ruled'), { digest }))).toBe('policyViolation')
    expect(await outcome(deleteTag(deps, deleting('ruled'), parseTag('free')!))).toBe('done')

    const full = replica({
      policies: {
        quota: async () => Promise.reject(problems.quotaExceeded({ addedBytes: 1, usedBytes: 1, limitBytes: 1 })),
      },
    })
    expect(await outcome(pushBlob(full, pushing('ruled'), randomBytes(10)))).toBe('quotaExceeded')
    const readOnly = replica({ policies: { readOnly: () => true } })
    expect(await outcome(startUpload(readOnly, pushing('ruled')))).toBe('readOnly')
    expect(await outcome(deleteManifest(readOnly, deleting('ruled'), digest))).toBe('readOnly')
  })
})

describe('deleteManifest', () => {
  const about = (digest: string, type: string) => ({
    mediaType: 'application/vnd.oci.image.index.v1+json',
    body: Buffer.from(
      JSON.stringify({
        schemaVersion: 2,
        artifactType: type,
        manifests: [],
        subject: { mediaType, digest, size: 1 },
      }),
    ),
  })
  async function put(
    deps: ArtifactDeps,
    to: string,
    { mediaType, body }: { mediaType: string; body: Buffer },
    name?: string,
  ) {
    const reference = name === undefined ? { digest: digestOf(body) } : tag(name)
    return (await putManifest(deps, pushing(to), { reference, mediaType, body })).digest
  }
  const alive = async (path: string) =>
    (
      await database.db.prisma.manifest.findMany({
        where: { repositoryId: await idOf(path), deletedAt: null },
        orderBy: { id: 'asc' },
      })
    ).map(({ digest }) => digest)

  it("takes accessories with it, at any depth and with their tags, but not what is another's or an index names", async () => {
    const deps = replica()
    const { body, digest } = await image(deps, pushing('signed'))
    await put(deps, 'signed', { mediaType, body }, 'v1')
    const other = await put(deps, 'signed', about(digestOf('not here'), 'application/vnd.signature'))
    const sbom = await put(deps, 'signed', about(digest, 'application/vnd.sbom'), 'sbom')
    const signature = await put(deps, 'signed', about(digest, 'application/vnd.signature'))
    const ofSbom = await put(deps, 'signed', about(sbom, 'application/vnd.signature'))
    const listed = await put(deps, 'signed', about(digest, 'application/vnd.listed'))
    const children = [{ mediaType: 'application/vnd.oci.image.index.v1+json', digest: listed, size: 1 }]
    const index = await put(deps, 'signed', {
      mediaType: 'application/vnd.oci.image.index.v1+json',
      body: Buffer.from(JSON.stringify({ schemaVersion: 2, manifests: children })),
    })
    await database.db.prisma.outboxEvent.deleteMany()

    expect(await deleteManifest(deps, deleting('signed'), digest)).toEqual({ tags: ['v1'] })
    expect(new Set(await alive('signed'))).toEqual(new Set([other, listed, index]))
    const events = await database.db.prisma.outboxEvent.findMany({ orderBy: { id: 'asc' } })
    const told = events.map(({ payload }) => payload as { artifact: { digest: string }; tags?: string[] })
    expect(told.map((event) => [event.artifact.digest, event.tags ?? []])).toEqual([
      [digest, ['v1']],
      [sbom, ['sbom']],
      [signature, []],
      [ofSbom, []],
    ])
    expect(await database.db.prisma.tagHistory.findMany({ where: { tag: 'sbom', toDigest: null } })).toMatchObject([
      { fromDigest: sbom, actor: 'user1' },
    ])
  })

  it('leaves everything as it was when the tag of an accessory may not be deleted', async () => {
    const deps = replica({
      policies: {
        immutability: (_grant, name) => ({ allowed: name !== 'fixed', reasons: [{ message: 'immutable' }] }),
      },
    })
    const { body, digest } = await image(deps, pushing('fixed'))
    await put(deps, 'fixed', { mediaType, body }, 'v1')
    const sbom = await put(deps, 'fixed', about(digest, 'application/vnd.sbom'), 'fixed')
    expect(await outcome(deleteManifest(deps, deleting('fixed'), digest))).toBe('tagUndeletable')
    expect(await alive('fixed')).toEqual([digest, sbom])
  })
})

describe('a first push while the project is deleted', () => {
  const source = { principal: { kind: 'user' as const, id: 1, name: 'ann' } }
  const indexType = 'application/vnd.oci.image.index.v1+json'
  const body = Buffer.from(JSON.stringify({ schemaVersion: 2, manifests: [] }))
  let directory: ProjectDirectory
  beforeAll(() => {
    directory = new ProjectDirectory(database.db)
  })
  afterAll(() => directory[Symbol.dispose]())

  async function newProject() {
    const { db } = database
    const name = `p${randomBytes(4).toString('hex')}`
    await createProject({ db, directory }, source, { name, ownerId: 1 })
    const created = (await directory.byName(name))!
    const holdsRepositories = (id: number) => hasRepositories(db.writes, id)
    return {
      push: (deps = replica()) =>
        putManifest(deps, grant('push', { ...facts('app'), project: created }), {
          reference: tag('1'),
          mediaType: indexType,
          body,
        }),
      pushBlob: () => pushBlob(replica(), grant('push', { ...facts('app'), project: created }), randomBytes(10)),
      remove: () => deleteProject({ db, directory, holdsRepositories }, source, created),
    }
  }

  it.each(['new', 'only of blobs so far'])('that came first keeps the project (%s)', async (kind) => {
    const { push, pushBlob, remove } = await newProject()
    if (kind !== 'new') await pushBlob()
    // The last thing a push does before it commits: by then it holds the project.
    const counted = Promise.withResolvers<void>()
    const go = Promise.withResolvers<void>()
    const slow = new Proxy(database.db, {
      get: (db, key) =>
        key === 'shared'
          ? {
              transaction: (keys: string[], work: Parameters<typeof db.transaction>[0]) =>
                db.shared.transaction(keys, async (tx) => {
                  const done = await work(tx)
                  counted.resolve()
                  await go.promise
                  return done
                }),
            }
          : Reflect.get(db, key, db),
    })
    const pushing = push(replica({ db: slow }))
    await counted.promise
    const removing = remove()
    expect(await settled(removing)).toBe(false)
    go.resolve()
    expect(await outcome(pushing)).toBe('done')
    expect(await outcome(removing)).toBe('preconditionFailed')
  })

  it.each(['new', 'only of blobs so far'])('that came second finds no project (%s)', async (kind) => {
    const { push, pushBlob, remove } = await newProject()
    if (kind !== 'new') await pushBlob()
    const held = hold('manifest.beforeDb')
    const pushing = push()
    await held.reached
    expect(await outcome(remove())).toBe('done')
    held.release()
    expect(await outcome(pushing)).toBe('projectNotFound')
    if (kind === 'new') expect(await outcome(pushBlob())).toBe('projectNotFound')
  })
})

describe('PullCounter', () => {
  it('loses nothing when a write fails, and flushes at the end', async () => {
    const deps = replica()
    const { body } = await image(deps, pushing('counted'))
    await putManifest(deps, pushing('counted'), { reference: tag('v1'), mediaType, body })
    const manifest = await getManifest(deps, pulling('counted'), tag('v1'))
    const failures: Error[] = []
    let broken = true
    const flaky = new Proxy(database.db, {
      get: (db, key) =>
        key !== 'transaction'
          ? Reflect.get(db, key, db)
          : broken
            ? () => Promise.reject(new Error('away'))
            : db.transaction.bind(db),
    })
    const pulls = new PullCounter(flaky, (error) => failures.push(error))
    pulls.count(manifest)
    await pulls.flush()
    expect(failures).toHaveLength(1)
    broken = false
    pulls.count(manifest)
    await pulls[Symbol.asyncDispose]()
    const repository = await database.db.prisma.repository.findUniqueOrThrow({ where: { id: await idOf('counted') } })
    expect(repository.pullCount).toBe(2n)
  })
})

const idOf = async (path: string) => (await database.db.prisma.repository.findFirstOrThrow({ where: { path } })).id

async function usage(): Promise<number> {
  const sum = await database.db.prisma.quotaDelta.aggregate({
    where: { projectId: project.id },
    _sum: { deltaBytes: true },
  })
  return Number(sum._sum.deltaBytes ?? 0)
}
