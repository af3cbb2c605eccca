import { randomBytes } from 'node:crypto'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals'
import { digestOf, mediaTypes, parseReference, type Digest, type Reference } from '@haven/oci'
import { charge, usage, type ProjectFacts } from '@haven/projects'
import { MemoryStorage, newObjectKey, type BlobStorage } from '@haven/storage'
import { testDatabase, type TestDatabase } from '@haven/testkit'
import {
  artifactDeps,
  deleteManifest,
  deleteRepository,
  finishUpload,
  getBlob,
  getManifest,
  grant,
  headBlobForPush,
  headManifest,
  interceptFaultPoint,
  listTagHistory,
  mountBlob,
  putManifest,
  startUpload,
  type ArtifactDeps,
  type FaultPoint,
  type Right,
} from '../index.ts'
import {
  buryUntagged,
  eraseTrash,
  estimateGarbage,
  explainDigest,
  forgetBlobs,
  gcDeps,
  purgeTombstones,
  repairStore,
  sweepLeftovers,
  unlinkBlobs,
  verifyStore,
  type Finding,
  type GcDeps,
  type GcRun,
} from './index.ts'

const HOUR = 3600
let database: TestDatabase
let project: ProjectFacts
let storage: MemoryStorage
let artifacts: ArtifactDeps
let gc: GcDeps
let intercepted: (() => void)[] = []
const run: GcRun = { executionId: 7, actor: 'gc' }

beforeAll(async () => {
  database = await testDatabase()
  const { id } = await database.db.prisma.project.create({ data: { name: 'library', nameKey: 'library', ownerId: 1 } })
  project = {
    id,
    name: 'library',
    public: true,
    createdAt: new Date(),
    updatedAt: new Date(),
    ownerId: 1,
    registryId: null,
    metadata: {},
    immutableRules: [],
    quotaBytes: -1,
  }
})
afterAll(async () => database[Symbol.asyncDispose]())
beforeEach(async () => {
  const { prisma } = database.db
  await prisma.$executeRaw`truncate artifacts.repositories, artifacts.blobs, artifacts.uploads, artifacts.trash, artifacts.removals cascade`
  await prisma.$executeRaw`truncate projects.quotas, projects.quota_deltas, events.outbox`
  await prisma.quota.create({ data: { projectId: project.id, hardBytes: 2n ** 40n } })
  storage = new MemoryStorage()
  const settings = { promiseSeconds: HOUR, trashSeconds: HOUR, tombstoneSeconds: 0 }
  artifacts = artifactDeps({ db: database.db, storage, settings, policies: { quota: charge } })
  gc = gcDeps({
    db: database.db,
    settings,
    quota: charge,
    projects: { byId: async (id) => (id === project.id ? project : null) },
  })
})
afterEach(() => {
  for (const end of intercepted) end()
  intercepted = []
})

const may = <R extends Right>(right: R, repository: string) =>
  grant(right, {
    project,
    repository,
    principal: { kind: 'user', id: 1, name: 'ann' },
    requestId: 'r',
    door: 'registry',
  })

type Descriptor = { mediaType: string; digest: Digest; size: number }

async function pushBlob(repository: string, bytes: Uint8Array = randomBytes(100)): Promise<Descriptor> {
  const to = may('push', repository)
  const { id } = await startUpload(artifacts, to)
  const digest = digestOf(bytes)
  const source = (async function* () {
    yield bytes
  })()
  await finishUpload(artifacts, to, id, { digest, chunk: { source, offsetBytes: null, sizeBytes: bytes.length } })
  return { mediaType: 'application/vnd.oci.image.layer.v1.tar', digest, size: bytes.length }
}

async function pushManifest(
  repository: string,
  manifest: { mediaType: string } & object,
  tag?: string,
): Promise<Descriptor> {
  const body = Buffer.from(JSON.stringify({ schemaVersion: 2, ...manifest }))
  const digest = digestOf(body)
  const reference = parseReference(tag ?? digest) as Reference
  await putManifest(artifacts, may('push', repository), { reference, mediaType: manifest.mediaType, body })
  return { mediaType: manifest.mediaType, digest, size: body.length }
}

const imageOf = (config: Descriptor, layers: Descriptor[], subject?: Descriptor) => ({
  mediaType: mediaTypes.ociManifest,
  config: { ...config, mediaType: 'application/vnd.oci.image.config.v1+json' },
  layers,
  ...(subject && { subject }),
})
const indexOf = (children: Descriptor[]) => ({ mediaType: mediaTypes.ociIndex, manifests: children })

async function pushImage(repository: string, tag?: string, subject?: Descriptor) {
  const [config, layer] = [await pushBlob(repository), await pushBlob(repository)]
  const manifest = await pushManifest(repository, imageOf(config, [layer], subject), tag)
  return { config, layer, manifest }
}

/** As `hours` go by for everything that was promised, pushed or thrown away. */
async function pass(hours = 3) {
  const { prisma } = database.db
  const by = `${hours} hours`
  await prisma.$executeRaw`update artifacts.blobs set promised_until = promised_until - ${by}::interval`
  await prisma.$executeRaw`update artifacts.blob_links set promised_until = promised_until - ${by}::interval`
  await prisma.$executeRaw`update artifacts.manifests
    set pushed_at = pushed_at - ${by}::interval, promised_until = promised_until - ${by}::interval`
  await prisma.$executeRaw`update artifacts.trash set erase_after = erase_after - ${by}::interval`
}

async function collect(options: { untagged?: boolean; run?: Partial<GcRun> } = {}) {
  const as = { ...run, ...options.run }
  if (options.untagged) await buryUntagged(gc, as)
  const manifests = await purgeTombstones(gc, as)
  const links = await unlinkBlobs(gc, as)
  const blobs = await forgetBlobs(gc, as)
  return { manifests: manifests.count, links, blobs: blobs.count, bytes: manifests.bytes + blobs.bytes }
}

const erase = async () => {
  await pass(2)
  return eraseTrash(database.db, storage)
}
const objects = async () => (await all(storage.list())).length
const canPull = (repository: string, blob: Descriptor) =>
  getBlob(artifacts, may('pull', repository), blob.digest).then(
    async ({ key }) => (await storage.stat(key)) !== null,
    () => false,
  )
const hasManifest = (repository: string, { digest }: { digest: Digest }) =>
  getManifest(artifacts, may('pull', repository), { digest }).then(
    () => true,
    () => false,
  )
const findings = async (options = {}) =>
  (await all(verifyStore(database.db, storage, { orphanAgeMs: -1, ...options }))).flatMap((v) => v.finding ?? [])
const used = async () => (await usage(database.db.writes, project.id))!.usedBytes

async function all<T>(source: AsyncIterable<T>): Promise<T[]> {
  const items: T[] = []
  for await (const item of source) items.push(item)
  return items
}

/** Holds whoever comes first to `point` until `release`, and says when somebody came. */
function stopAt(point: FaultPoint) {
  let arrive!: () => void
  let release!: () => void
  const arrived = new Promise<void>((resolve) => (arrive = resolve))
  const released = new Promise<void>((resolve) => (release = resolve))
  let first = true
  intercepted.push(
    interceptFaultPoint(point, async () => {
      if (!first) return
      first = false
      arrive()
      await released
    }),
  )
  return { arrived, release }
}

/** Long enough for a statement to reach the lock that it must wait for. */
async function blocked() {
  for (;;) {
    const [row] = await database.db.prisma.$queryRaw<{ n: number }[]>`
      select count(*)::int as n from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`
    if (row!.n > 0) return
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

describe('a run', () => {
  it('frees what nothing needs, erases it later, and says what removed it', async () => {
    const gone = await pushImage('app', '1')
    const stays = await pushImage('app', '2')
    const before = await used()
    await deleteManifest(artifacts, may('delete', 'app'), gone.manifest.digest)
    await pass()
    const collected = await collect()
    expect(collected).toEqual({ manifests: 1, links: 2, blobs: 2, bytes: 200 + gone.manifest.size })
    expect(await used()).toBe(before - 200 - gone.manifest.size)
    expect(await canPull('app', gone.layer)).toBe(false)
    expect(await canPull('app', stays.layer)).toBe(true)
    expect(await objects()).toBe(4)

    expect((await explainDigest(gc, gone.layer.digest)).reasons.map((reason) => reason.code)).toEqual([
      'trashed',
      'removed',
      'removed',
    ])
    expect(await eraseTrash(database.db, storage)).toMatchObject({ erased: 0 })
    expect(await erase()).toMatchObject({ erased: 2, erasedBytes: 200, failed: 0, remaining: 0 })
    expect(await objects()).toBe(2)
    expect(await explainDigest(gc, gone.manifest.digest)).toMatchObject({
      present: false,
      reasons: [
        { code: 'removed', kind: 'manifest', repository: 'library/app', by: 'ann', because: 'deleted', executionId: 7 },
      ],
    })
    expect(await collect({ untagged: true })).toEqual({ manifests: 0, links: 0, blobs: 0, bytes: 0 })
    expect(await findings()).toEqual([])
  })

  it('leaves alone what was pushed, or asked for by who may push, within the grace', async () => {
    const blob = await pushBlob('app')
    expect(await collect({ untagged: true })).toEqual({ manifests: 0, links: 0, blobs: 0, bytes: 0 })
    await pass()
    await headBlobForPush(artifacts, may('push', 'app'), blob.digest)
    await collect()
    expect(await canPull('app', blob)).toBe(true)
    expect(await explainDigest(gc, blob.digest)).toMatchObject({
      present: true,
      reasons: [{ code: 'promised' }, { code: 'linked', neededBy: [] }],
    })
  })

  it('with a shorter grace takes what was promised for longer', async () => {
    await pushBlob('app')
    expect(await collect({ run: { graceSeconds: 60 } })).toMatchObject({ blobs: 0 })
    expect(await collect({ run: { graceSeconds: 0 } })).toMatchObject({ links: 1, blobs: 1 })
  })

  it('takes a blob from the repository that does not need it and keeps it for the one that does', async () => {
    const shared = await pushBlob('a')
    await pushBlob('b', Buffer.alloc(1))
    await mountBlob(artifacts, may('push', 'b'), may('pull', 'a'), shared.digest)
    await pushManifest('b', imageOf(await pushBlob('b'), [shared]), '1')
    await pass()
    const before = await used()
    expect(await collect()).toMatchObject({ links: 2, blobs: 1 })
    expect(await canPull('a', shared)).toBe(false)
    expect(await canPull('b', shared)).toBe(true)
    expect(await used()).toBe(before - 1) // the project still has the shared blob
  })

  it('deletes untagged images only when asked, never children of an index, nor accessories of an image', async () => {
    const child = await pushImage('app')
    const index = await pushManifest('app', indexOf([child.manifest]), 'multi')
    const image = await pushImage('app', '1')
    const signature = await pushImage('app', undefined, image.manifest)
    const untagged = await pushImage('app')
    await pass()
    expect(await collect()).toMatchObject({ manifests: 0 })
    const names: string[] = []
    expect(await buryUntagged(gc, run, (m) => names.push(m.repository))).toBe(1)
    expect(names).toEqual(['library/app'])
    expect(await database.db.prisma.outboxEvent.count({ where: { type: 'haven.events.v1.ArtifactDeleted' } })).toBe(1)
    expect(await collect({ untagged: true })).toMatchObject({ manifests: 1, blobs: 2 })
    for (const kept of [child.manifest, index, image.manifest, signature.manifest])
      expect(await hasManifest('app', kept)).toBe(true)
    expect(await hasManifest('app', untagged.manifest)).toBe(false)
  })

  it('removes the whole tree of accessories and children of what was deleted, in one run', async () => {
    const child = await pushImage('app')
    const index = await pushManifest('app', indexOf([child.manifest]), 'multi')
    const signature = await pushImage('app', undefined, index)
    const ofSignature = await pushImage('app', undefined, signature.manifest)
    await pass()
    await database.db.prisma.tag.deleteMany({ where: { name: 'multi' } })
    const named = await pushImage('app', 'attestation', index)
    await pass()
    expect(await collect({ untagged: true })).toMatchObject({ manifests: 4, blobs: 6 })
    for (const gone of [child, signature, ofSignature]) expect(await hasManifest('app', gone.manifest)).toBe(false)
    expect(await hasManifest('app', named.manifest)).toBe(true)
  })

  it('lets a subject wait for an accessory that was pushed after its deletion', async () => {
    const image = await pushImage('app', '1')
    await pass()
    await deleteManifest(artifacts, may('delete', 'app'), image.manifest.digest)
    const signature = await pushImage('app', undefined, image.manifest)
    expect(await collect()).toMatchObject({ manifests: 0 })
    expect(await hasManifest('app', signature.manifest)).toBe(true)
    await pass()
    expect(await collect()).toMatchObject({ manifests: 2, blobs: 4 })
  })

  it('frees a deleted image although an index names what hangs on it, which goes with that index', async () => {
    const image = await pushImage('app', '1')
    const signature = await pushImage('app', undefined, image.manifest)
    await pushManifest('app', indexOf([signature.manifest]), 'multi')
    await pass()
    await deleteManifest(artifacts, may('delete', 'app'), image.manifest.digest)
    const estimate = await estimateGarbage(gc, run, { untagged: false })
    const collected = await collect()
    expect([collected, estimate.manifests.count]).toMatchObject([{ manifests: 1, blobs: 2 }, 1])
    expect(await hasManifest('app', signature.manifest)).toBe(true)
    await database.db.prisma.tag.deleteMany({ where: { name: 'multi' } })
    await pass()
    expect((await estimateGarbage(gc, run, { untagged: true })).manifests.count).toBe(2)
    expect(await collect({ untagged: true })).toMatchObject({ manifests: 2, blobs: 2 })
    expect(await hasManifest('app', signature.manifest)).toBe(false)
  })

  it('would do in a dry run what it does', async () => {
    const child = await pushImage('app')
    const index = await pushManifest('app', indexOf([child.manifest]), 'multi')
    await pushImage('app', undefined, index)
    await pushImage('app')
    await pushImage('app', 'stays')
    await pushBlob('other')
    await pass()
    await deleteManifest(artifacts, may('delete', 'app'), index.digest)
    for (const untagged of [false, true]) {
      const estimate = await estimateGarbage(gc, run, { untagged })
      const collected = await collect({ untagged })
      expect([estimate.manifests.count, estimate.blobs.count]).toEqual([collected.manifests, collected.blobs])
      expect(estimate.manifests.bytes + estimate.blobs.bytes).toBe(collected.bytes)
      expect(collected.blobs).toBeGreaterThan(0)
    }
  })

  it('whose lease was lost removes nothing', async () => {
    const blob = await pushBlob('app')
    await pass()
    const lost = { ...run, hold: () => Promise.reject(new Error('lease lost')) }
    await expect(unlinkBlobs(gc, lost)).rejects.toThrow('lease lost')
    await unlinkBlobs(gc, run)
    await expect(forgetBlobs(gc, lost)).rejects.toThrow('lease lost')
    expect(await database.db.prisma.blob.count()).toBe(1)
    expect(await database.db.prisma.trashedObject.count()).toBe(0)
    expect(blob.size).toBe(100)
  })

  it('stops between batches', async () => {
    await pushBlob('app')
    await pass()
    await expect(unlinkBlobs(gc, { ...run, signal: AbortSignal.abort(new Error('stop')) })).rejects.toThrow('stop')
  })
})

describe('a tombstone', () => {
  const tombstones = () => database.db.prisma.$queryRaw<object[]>`
    select m.digest, m.deleted_by as by, m.deleted_reason as because, m.deleted_door as door, m.deleted_request_id as request,
           m.purge_after >= m.deleted_at + interval '7 days' as kept
      from artifacts.manifests m where m.deleted_at is not null order by m.id`

  it('says who deleted it, why, by which door, in which request and until when it is kept; a tag’s, too', async () => {
    const patient = { ...artifacts, settings: { ...artifacts.settings, tombstoneSeconds: 7 * 24 * HOUR } }
    const image = await pushImage('app', 'v1')
    const signature = await pushImage('app', undefined, image.manifest)
    await deleteManifest(patient, may('delete', 'app'), image.manifest.digest)
    const by = { by: 'ann', door: 'registry', request: 'r', kept: true }
    expect(await tombstones()).toEqual([
      { digest: image.manifest.digest, because: 'deleted', ...by },
      {
        digest: signature.manifest.digest,
        because: `its subject went: ${image.manifest.digest} was deleted`,
        ...by,
      },
    ])
    const { changes } = await listTagHistory(artifacts, { projectId: project.id, path: 'app' }, 'v1', {
      before: null,
      limit: 1,
    })
    expect(changes).toMatchObject([{ from: image.manifest.digest, to: null, actor: 'ann', requestId: 'r' }])
    expect(changes[0]!.restorableUntil!.getTime()).toBeGreaterThan(Date.now() + 6 * 24 * HOUR * 1000)
    await collect()
    expect(await tombstones()).toHaveLength(2)
  })

  it('of garbage collection says that it was that', async () => {
    await pushImage('app')
    await pass()
    await buryUntagged(gc, run)
    expect(await tombstones()).toMatchObject([{ by: 'gc', because: 'untagged', door: 'gc' }])
  })

  it('is nothing any more once its manifest is pushed again', async () => {
    const { manifest } = await pushImage('app', 'v1')
    const body = (await getManifest(artifacts, may('pull', 'app'), { digest: manifest.digest })).payload
    await deleteManifest(artifacts, may('delete', 'app'), manifest.digest)
    const to = may('push', 'app')
    await putManifest(artifacts, to, { reference: { digest: manifest.digest }, mediaType: manifest.mediaType, body })
    const rows = await database.db.prisma.manifest.findMany({ where: { digest: manifest.digest } })
    expect(rows).toMatchObject([{ deletedAt: null, deletedBy: null, purgeAfter: null }])
  })

  it('keeps the histories of its repository’s tags, which go with the last of them', async () => {
    const [{ manifest }] = [await pushImage('app', 'v1'), await pushImage('other', 'v1')]
    const history = async (path: string) => {
      const place = { projectId: project.id, path }
      return (await listTagHistory(artifacts, place, 'v1', { before: null, limit: 10 })).changes.length
    }
    await deleteManifest(artifacts, may('delete', 'app'), manifest.digest)
    await collect()
    expect([await history('app'), await history('other')]).toEqual([2, 1])
    for (const repository of ['app', 'other']) await deleteRepository(artifacts, may('delete', repository))
    expect([await history('app'), await history('other')]).toEqual([2, 2])
    await collect()
    expect([await history('app'), await history('other')]).toEqual([0, 0])
  })
})

describe('races (reliability.md §8)', () => {
  it('R1: a HEAD after the selection keeps the blob', async () => {
    const [config, layer] = [await pushBlob('app'), await pushBlob('app')]
    await pass()
    const selected = stopAt('gc.candidates')
    const unlinking = unlinkBlobs(gc, run)
    await selected.arrived
    await headBlobForPush(artifacts, may('push', 'app'), layer.digest)
    await headBlobForPush(artifacts, may('push', 'app'), config.digest)
    selected.release()
    expect(await unlinking).toBe(0)
    await forgetBlobs(gc, run)
    await pushManifest('app', imageOf(config, [layer]), '1')
    expect(await canPull('app', layer)).toBe(true)
  })

  it('R2: a manifest that holds its blobs first keeps them', async () => {
    const [config, layer] = [await pushBlob('app'), await pushBlob('app')]
    await pass()
    const holding = stopAt('manifest.afterCheck')
    const pushing = pushManifest('app', imageOf(config, [layer]), '1')
    await holding.arrived
    expect(await collect({ untagged: true })).toEqual({ manifests: 0, links: 0, blobs: 0, bytes: 0 })
    holding.release()
    await pushing
    expect(await canPull('app', layer)).toBe(true)
  })

  it.each(['link', 'blob'] as const)(
    'R2: a manifest that comes second is told that the %s is gone, and its next try succeeds',
    async (what) => {
      const bytes = [randomBytes(50), randomBytes(60)]
      const [config, layer] = [await pushBlob('app', bytes[0]), await pushBlob('app', bytes[1])]
      await pass()
      if (what === 'blob') await unlinkBlobs(gc, run)
      const locked = stopAt('gc.locked')
      const collecting = what === 'link' ? unlinkBlobs(gc, run) : forgetBlobs(gc, run)
      await locked.arrived
      const pushing = pushManifest('app', imageOf(config, [layer]), '1').then(
        () => 'pushed',
        (error: Error) => error.message,
      )
      if (what === 'link') await blocked()
      locked.release()
      expect(await collecting).toEqual(what === 'link' ? 2 : { count: 2, bytes: 110 })
      expect(await pushing).toContain('blob unknown to registry')
      await Promise.all(bytes.map((each) => pushBlob('app', each)))
      await pushManifest('app', imageOf(config, [layer]), '1')
      await forgetBlobs(gc, run)
      await erase()
      expect(await canPull('app', layer)).toBe(true)
      expect(await findings({ deep: true })).toEqual([])
    },
  )

  it('R3: the same bytes pushed while the old ones are being forgotten or erased are readable in the end', async () => {
    const bytes = randomBytes(64)
    const blob = await pushBlob('app', bytes)
    await pass()
    await unlinkBlobs(gc, run)
    const locked = stopAt('gc.locked')
    const forgetting = forgetBlobs(gc, run)
    await locked.arrived
    const pushing = pushBlob('app', bytes)
    await blocked()
    locked.release()
    expect(await forgetting).toMatchObject({ count: 1 })
    await pushing
    await pass(2)
    const erasing = stopAt('gc.beforeErase')
    const erased = eraseTrash(database.db, storage)
    await erasing.arrived
    await pushBlob('app', bytes)
    erasing.release()
    expect(await erased).toMatchObject({ erased: 2 }) // the old bytes, and those of the second push, which were there already
    expect(await canPull('app', blob)).toBe(true)
    expect(await findings({ deep: true })).toEqual([])
  })

  it('R4: a mount from the last repository that has the blob keeps it, before and after the lock', async () => {
    const blob = await pushBlob('b')
    await pass()
    const selected = stopAt('gc.candidates')
    const unlinking = unlinkBlobs(gc, run)
    await selected.arrived
    expect(await mountBlob(artifacts, may('push', 'a'), may('pull', 'b'), blob.digest)).toEqual({ sizeBytes: 100 })
    selected.release()
    await unlinking
    await forgetBlobs(gc, run)
    expect(await canPull('a', blob)).toBe(true)

    await pass()
    await unlinkBlobs(gc, run)
    const other = await pushBlob('b')
    await pass()
    const found = stopAt('mount.beforeDb')
    const mounting = mountBlob(artifacts, may('push', 'a'), may('pull', 'b'), other.digest)
    await found.arrived
    await collect()
    found.release()
    expect(await mounting).toBeNull() // forgotten since it was looked up: the client uploads
  })

  it('R5: a tag that comes back to an untagged image keeps or revives it', async () => {
    const image = await pushImage('app', '1')
    const again = () => pushManifest('app', imageOf(image.config, [image.layer]), 'again')
    await pushImage('app', '1')
    await pass()
    const selected = stopAt('gc.candidates')
    const burying = buryUntagged(gc, run)
    await selected.arrived
    await again()
    selected.release()
    expect(await burying).toBe(0)

    await database.db.prisma.tag.deleteMany({ where: { name: 'again' } })
    await pass()
    const locked = stopAt('gc.locked')
    const buryingNow = buryUntagged(gc, run)
    await locked.arrived
    const tagging = again()
    await blocked()
    locked.release()
    expect(await buryingNow).toBe(1)
    await tagging
    await collect({ untagged: true })
    expect(await hasManifest('app', image.manifest)).toBe(true)
    expect(await canPull('app', image.layer)).toBe(true)
  })

  it('R6: an index that is being pushed keeps its untagged children', async () => {
    const child = await pushImage('app')
    await pass()
    const holding = stopAt('manifest.afterCheck')
    const pushing = pushManifest('app', indexOf([child.manifest]), 'multi')
    await holding.arrived
    expect(await buryUntagged(gc, run)).toBe(0)
    holding.release()
    await pushing

    const late = await pushImage('app')
    await pass()
    const selected = stopAt('gc.candidates')
    const burying = buryUntagged(gc, run)
    await selected.arrived
    await pushManifest('app', indexOf([late.manifest]), 'late')
    selected.release()
    expect(await burying).toBe(0)
    for (const kept of [child, late]) expect(await hasManifest('app', kept.manifest)).toBe(true)
  })

  it('R6: a child that is pushed again before its index is not taken in between', async () => {
    const child = await pushImage('app')
    await pass()
    await pushManifest('app', imageOf(child.config, [child.layer]))
    expect(await buryUntagged(gc, run)).toBe(0)
    await pushManifest('app', indexOf([child.manifest]), 'multi')
    expect(await collect({ untagged: true })).toMatchObject({ manifests: 0, blobs: 0 })
  })

  it('R6: a client that may push and is told of an untagged child finds it there for its index, or is told that it is gone', async () => {
    const child = await pushImage('app')
    await pass()
    await headManifest(artifacts, may('pull', 'app'), child.manifest) // who only reads is promised nothing
    const selected = stopAt('gc.candidates')
    const burying = buryUntagged(gc, run)
    await selected.arrived
    await headManifest(artifacts, may('pull', 'app'), child.manifest, async () => may('push', 'app'))
    selected.release()
    expect(await burying).toBe(0)
    await pushManifest('app', indexOf([child.manifest]), 'multi')
    expect(await collect({ untagged: true })).toMatchObject({ manifests: 0 })

    const late = await pushImage('app')
    await pass()
    const locked = stopAt('gc.locked')
    const buryingNow = buryUntagged(gc, run)
    await locked.arrived
    const asking = getManifest(artifacts, may('pull', 'app'), late.manifest, async () => may('push', 'app'))
    const refused = asking.catch((error: unknown) => error)
    await blocked()
    locked.release()
    expect(await buryingNow).toBe(1)
    expect(await refused).toMatchObject({ kind: { name: 'manifestUnknown' } })
  })

  it('R6: of an index and a collection of its child, the second sees what the first did', async () => {
    artifacts = artifactDeps({ ...artifacts, settings: { ...artifacts.settings, sparseIndexes: false } })
    const child = await pushImage('app')
    await pass()
    const locked = stopAt('gc.locked')
    const burying = buryUntagged(gc, run)
    await locked.arrived
    const pushing = pushManifest('app', indexOf([child.manifest]), 'multi')
    const refused = pushing.catch((error: unknown) => error)
    await blocked()
    locked.release()
    expect(await burying).toBe(1)
    expect(await refused).toMatchObject({ entries: [{ facts: { digest: child.manifest.digest } }] })

    await pushManifest('app', imageOf(child.config, [child.layer]))
    await pass()
    const holding = stopAt('manifest.afterCheck')
    const again = pushManifest('app', indexOf([child.manifest]), 'multi')
    await holding.arrived
    expect(await buryUntagged(gc, run)).toBe(0) // passed over: it is held
    holding.release()
    await again
    expect(await buryUntagged(gc, run)).toBe(0)
    expect(await hasManifest('app', child.manifest)).toBe(true)
  })

  it('R7: an accessory that is being pushed keeps its untagged subject, and for a while after', async () => {
    const image = await pushImage('app')
    await pass()
    const holding = stopAt('manifest.afterCheck')
    const pushing = pushImage('app', undefined, image.manifest)
    await holding.arrived
    expect(await buryUntagged(gc, run)).toBe(0)
    holding.release()
    await pushing
    expect(await buryUntagged(gc, run)).toBe(0)
    await pass()
    expect(await collect({ untagged: true })).toMatchObject({ manifests: 2 })
  })

  it.each(['deletion', 'accessory'])(
    'R7: a subject is deleted while an accessory is pushed; the %s was first',
    async (first) => {
      const image = await pushImage('app', '1')
      const [config, layer] = [await pushBlob('app'), await pushBlob('app')]
      const push = () => pushManifest('app', imageOf(config, [layer], image.manifest))
      const remove = () => deleteManifest(artifacts, may('delete', 'app'), image.manifest.digest)
      if (first === 'accessory') {
        const holding = stopAt('manifest.afterCheck')
        const pushing = push()
        await holding.arrived
        const removing = remove()
        await blocked()
        holding.release()
        const accessory = await pushing
        await removing
        expect(await hasManifest('app', accessory)).toBe(false)
      } else {
        const holding = stopAt('manifest.beforeDb')
        const pushing = push()
        await holding.arrived
        await remove()
        holding.release()
        const accessory = await pushing
        expect(await hasManifest('app', accessory)).toBe(true) // about something that is not there: as the specification allows
      }
      await pass()
      await collect()
      expect(await database.db.prisma.manifest.count()).toBe(0)
    },
  )

  it('R9: two runs at once, each with several workers, remove each thing once', async () => {
    for (let n = 0; n < 300; n++) await pushBlob('app', Buffer.from(`blob ${n}`))
    await pass()
    const before = await used()
    const totals = await Promise.all([collect({ run: { workers: 4 } }), collect({ run: { workers: 4 } })])
    const rest = await collect()
    const sum = (pick: (each: typeof rest) => number) =>
      [...totals, rest].reduce((total, each) => total + pick(each), 0)
    expect([sum((each) => each.links), sum((each) => each.blobs)]).toEqual([300, 300])
    expect(before - (await used())).toBe(sum((each) => each.bytes))
    await pass(2)
    const erased = await Promise.all([
      eraseTrash(database.db, storage, { workers: 3 }),
      eraseTrash(database.db, storage),
    ])
    expect(erased[0].erased + erased[1].erased).toBe(300)
    expect(await objects()).toBe(0)
  })

  it('R12: an old image is kept by an index that is too young to be looked at, and goes with it', async () => {
    // As replication writes them: the image came long ago, the index that names it a moment ago.
    const child = await pushImage('app')
    await pass(100)
    const index = await pushManifest('app', indexOf([child.manifest]))
    // Nobody is promised anything any more: only the index, which no run looks at yet, keeps the image.
    await database.db.prisma.manifest.updateMany({ data: { promisedUntil: new Date(0) } })
    expect(await buryUntagged(gc, run)).toBe(0)
    expect(await hasManifest('app', child.manifest)).toBe(true)
    await deleteManifest(artifacts, may('delete', 'app'), index.digest)
    expect(await hasManifest('app', child.manifest)).toBe(false)
  })

  it('F36: runs all the time without grace under pushes, pulls and deletes lose nothing that was acknowledged', async () => {
    const pushing = { on: true }
    const settings = { promiseSeconds: 1, trashSeconds: 0, tombstoneSeconds: 0 }
    artifacts = artifactDeps({ db: database.db, storage, settings, policies: { quota: charge } })
    gc = gcDeps({ ...gc, settings })
    const shared = Array.from({ length: 6 }, (_, n) => Buffer.from(`shared layer ${n}`))
    const collecting = (async () => {
      while (pushing.on) {
        await collect({ untagged: true, run: { workers: 2 } })
        await eraseTrash(database.db, storage)
      }
    })()
    let lost = 0
    let refused = 0
    const actor = async (n: number) => {
      for (let turn = 0; turn < 25; turn++) {
        const repository = `app${n % 3}`
        const config = await pushBlob(repository)
        const layers = await Promise.all([turn % 6, (turn + n) % 6].map((pick) => pushBlob(repository, shared[pick])))
        const manifest = await pushManifest(
          repository,
          imageOf(config, [...new Map(layers.map((l) => [l.digest, l])).values()]),
          `t${n}`,
        ).catch(() => null)
        if (!manifest) {
          refused++ // pushes of more than a second: told so, never acknowledged with a hole
          continue
        }
        for (const blob of [config, ...layers]) if (!(await canPull(repository, blob))) lost++
        if (!(await hasManifest(repository, manifest))) lost++
      }
    }
    await Promise.all(Array.from({ length: 6 }, (_, n) => actor(n)))
    pushing.on = false
    await collecting
    expect(lost).toBe(0)
    expect(refused).toBeLessThan(75)
    await pass()
    await collect({ untagged: true })
    await collect({ untagged: true })
    await eraseTrash(database.db, storage)
    expect(await findings({ deep: true })).toEqual([])
    const { _count } = await database.db.prisma.blobLocation.aggregate({ _count: true })
    expect(await objects()).toBe(_count)
    expect(await used()).toBe(await counted())
  })
})

/** What the project's repositories hold, counted anew. */
async function counted(): Promise<number> {
  const [row] = await database.db.prisma.$queryRaw<{ bytes: number }[]>`
    select ((select coalesce(sum(payload_bytes), 0) from artifacts.manifests)
          + (select coalesce(sum(size_bytes), 0) from artifacts.blobs b
              where exists (select from artifacts.blob_links k where k.blob_id = b.id)))::float8 as bytes`
  return row!.bytes
}

describe('killed at any step (F38)', () => {
  const steps: FaultPoint[] = ['gc.candidates', 'gc.locked', 'gc.committed', 'gc.beforeErase', 'gc.erased']
  it.each(steps)('%s: the next run finishes and nothing is lost', async (step) => {
    const gone = await pushImage('app', '1')
    const stays = await pushImage('app', '2')
    await pushImage('app')
    await deleteManifest(artifacts, may('delete', 'app'), gone.manifest.digest)
    await pass()
    for (let died = true; died;) {
      let reached = 0
      const at = Math.floor(Math.random() * 3)
      const end = interceptFaultPoint(step, () =>
        reached++ === at ? Promise.reject(new Error('killed')) : Promise.resolve(),
      )
      died = await collect({ untagged: true }).then(
        () => false,
        () => true,
      )
      end()
    }
    await pass(2)
    const end = interceptFaultPoint(step, () => Promise.reject(new Error('killed')))
    await eraseTrash(database.db, storage).catch((error: Error) => expect(error.message).toBe('killed'))
    end()
    expect(await findings()).toEqual([])
    await erase()
    expect(await objects()).toBe(2)
    expect(await canPull('app', stays.layer)).toBe(true)
    expect(await used()).toBe(await counted())
    expect(await database.db.prisma.trashedObject.count()).toBe(0)
  })
})

describe('eraseTrash', () => {
  it('goes on past an object that the store does not delete, keeps it with the reason, and tries it again (F39)', async () => {
    for (let n = 0; n < 3; n++) await pushBlob('app')
    await pass()
    await collect()
    await pass(2)
    const [stuck] = await all(storage.list())
    const failing = new Proxy<BlobStorage>(storage, {
      get: (target, name) =>
        name === 'remove'
          ? async (keys: string[]) => {
              const { removed } = await target.remove(keys.filter((key) => key !== stuck!.key))
              return {
                removed,
                failed: keys
                  .filter((key) => key === stuck!.key)
                  .map((key) => ({ key, error: new Error('AccessDenied') })),
              }
            }
          : Reflect.get(target, name, target),
    })
    expect(await eraseTrash(database.db, failing)).toMatchObject({
      erased: 2,
      failed: 1,
      failures: [{ key: stuck!.key, reason: 'AccessDenied' }],
    })
    expect(await database.db.prisma.trashedObject.findMany()).toMatchObject([
      { key: stuck!.key, lastError: 'AccessDenied', attempts: 1 },
    ])
    expect(await eraseTrash(database.db, failing)).toMatchObject({ erased: 0, failed: 0 }) // not at once
    expect(await erase()).toMatchObject({ erased: 1 })
  })

  it('removes what an unfinished upload left, completed or not', async () => {
    const to = may('push', 'app')
    const { id } = await startUpload(artifacts, to)
    const upload = await database.db.prisma.upload.findUniqueOrThrow({ where: { id } })
    const source = (async function* () {
      yield randomBytes(10)
    })()
    const { state } = await storage.append(upload.key, null, 0, source)
    await storage.complete(upload.key, state, 10) // and died before it was recorded
    await database.db.prisma.upload.delete({ where: { id } })
    await database.db.prisma.trashedObject.create({
      data: { key: upload.key, store: 'memory', reason: 'upload expired', eraseAfter: new Date(0) },
    })
    await eraseTrash(database.db, storage)
    expect(await objects()).toBe(0)
  })

  it('never touches an object that a record points at, whatever the trash says', async () => {
    const blob = await pushBlob('app')
    const { key } = await getBlob(artifacts, may('pull', 'app'), blob.digest)
    await database.db.prisma.trashedObject.create({
      data: { key, store: 'memory', reason: 'a mistake', eraseAfter: new Date(0) },
    })
    expect(await eraseTrash(database.db, storage)).toMatchObject({ erased: 0 })
    expect(await canPull('app', blob)).toBe(true)
  })
})

describe('sweepLeftovers (I8)', () => {
  const append = async (key: string) => {
    const source = (async function* () {
      yield randomBytes(10)
    })()
    return storage.append(key, null, 0, source)
  }
  const unfinished = async () => (await all(storage.listUnfinished())).map(({ key }) => key)
  const at = { minAgeMs: -1 }

  it('removes what a process wrote that died before it was recorded, and spares the blob that another made of the upload', async () => {
    const bytes = randomBytes(10)
    const to = may('push', 'app')
    const { id } = await startUpload(artifacts, to)
    const { key } = await database.db.prisma.upload.findUniqueOrThrow({ where: { id } })
    const digest = digestOf(bytes)
    const source = (async function* () {
      yield bytes
    })()
    await finishUpload(artifacts, to, id, { digest, chunk: { source, offsetBytes: null, sizeBytes: bytes.length } })
    await append(key)
    expect(await sweepLeftovers(database.db, storage, { minAgeMs: HOUR * 1000 })).toEqual({ swept: 0, failures: [] })
    expect(await unfinished()).toEqual([key])
    expect(await sweepLeftovers(database.db, storage, at)).toEqual({ swept: 1, failures: [] })
    expect(await unfinished()).toEqual([])
    expect(await canPull('app', { mediaType: '', digest, size: bytes.length })).toBe(true)
  })

  it('leaves alone what goes on, and what the trash ends', async () => {
    const { id } = await startUpload(artifacts, may('push', 'app'))
    const { key: open } = await database.db.prisma.upload.findUniqueOrThrow({ where: { id } })
    const [cancelled, gone] = [newObjectKey(), newObjectKey()]
    for (const key of [open, cancelled, gone]) await append(key)
    await database.db.prisma.trashedObject.create({
      data: { key: cancelled, store: 'memory', reason: 'upload cancelled', eraseAfter: new Date(Date.now() + 60_000) },
    })
    expect(await sweepLeftovers(database.db, storage, at)).toEqual({ swept: 1, failures: [] })
    expect((await unfinished()).toSorted()).toEqual([open, cancelled].toSorted())
  })

  it('R11: removes nothing while a backup is being taken', async () => {
    const key = newObjectKey()
    await append(key)
    await database.db.prisma.$transaction(async (backup) => {
      await backup.$queryRaw`select pg_advisory_xact_lock(hashtext('haven.backup'))::text`
      expect(await sweepLeftovers(database.db, storage, at)).toEqual({ swept: 0, failures: [] })
    })
    expect(await sweepLeftovers(database.db, storage, at)).toEqual({ swept: 1, failures: [] })
  })

  it('goes on past what the store does not remove, and says why (F39)', async () => {
    const [stuck, gone] = [newObjectKey(), newObjectKey()]
    const failing = new (class extends MemoryStorage {
      override async discard(key: string) {
        if (key === stuck) throw new Error('AccessDenied')
        await super.discard(key)
      }
    })()
    storage = failing
    for (const key of [stuck, gone]) await append(key)
    expect(await sweepLeftovers(database.db, failing, at)).toEqual({
      swept: 1,
      failures: [{ key: stuck, reason: 'AccessDenied' }],
    })
    expect(await unfinished()).toEqual([stuck])
  })
})

describe('verifyStore and repairStore', () => {
  const replace = async (key: string, bytes: Buffer) => {
    await storage.remove([key])
    const source = (async function* () {
      yield bytes
    })()
    const { state } = await storage.append(key, null, 0, source)
    await storage.complete(key, state, bytes.length)
  }
  const keyOf = async (blob: Descriptor) => (await getBlob(artifacts, may('pull', 'app'), blob.digest)).key

  it('find what is missing, corrupt, of the wrong size or an orphan, and a push heals what was repaired', async () => {
    const bytes = [0, 1, 2, 3].map(() => randomBytes(100))
    const [missing, corrupt, short, healthy] = (await Promise.all(bytes.map((each) => pushBlob('app', each)))) as [
      Descriptor,
      Descriptor,
      Descriptor,
      Descriptor,
    ]
    await storage.remove([await keyOf(missing)])
    await replace(await keyOf(corrupt), randomBytes(100))
    await replace(await keyOf(short), randomBytes(5))
    const orphan = newObjectKey()
    await replace(orphan, randomBytes(7))

    const kinds = (found: Finding[]) =>
      Object.fromEntries(found.map((finding) => [finding.digest ?? finding.key, finding.kind]))
    expect(kinds(await findings())).toEqual({
      [missing.digest]: 'missing',
      [short.digest]: 'size',
      [orphan]: 'orphan',
    })
    const found = await findings({ deep: true })
    expect(kinds(found)).toEqual({
      [missing.digest]: 'missing',
      [corrupt.digest]: 'corrupt',
      [short.digest]: 'size',
      [orphan]: 'orphan',
    })
    expect(found.find((finding) => finding.kind === 'size')).toMatchObject({
      expectedBytes: 100,
      actualBytes: 5,
      repositories: [{ path: 'app' }],
    })
    expect(await findings({ digests: [missing.digest] })).toHaveLength(1)
    expect(await all(verifyStore(database.db, storage, { orphanAgeMs: 60_000 }))).not.toContainEqual(
      expect.objectContaining({ finding: expect.objectContaining({ kind: 'orphan' }) }),
    )

    await repairStore(database.db, storage, found, { trashSeconds: 0, dryRun: true })
    expect(await canPull('app', corrupt)).toBe(true)
    const repaired = await repairStore(database.db, storage, found, { trashSeconds: 0 })
    expect(repaired.map(({ action }) => action).sort()).toEqual(['dropped', 'dropped', 'dropped', 'trashed'])
    for (const damaged of [missing, corrupt, short]) expect(await canPull('app', damaged)).toBe(false)
    expect((await explainDigest(gc, corrupt.digest)).reasons).toContainEqual({
      code: 'damaged',
      since: expect.any(Date),
    })
    expect(await canPull('app', healthy)).toBe(true)

    await Promise.all(bytes.map((each) => pushBlob('app', each)))
    for (const healed of [missing, corrupt, short]) expect(await canPull('app', healed)).toBe(true)
    await erase()
    expect(await findings({ deep: true })).toEqual([])
    expect(await objects()).toBe(4)
    const late = await repairStore(database.db, storage, found, { trashSeconds: 0 })
    expect(late.map(({ action }) => action)).toEqual(['none', 'none', 'none', 'trashed'])
  })
})

describe('explainDigest', () => {
  it('names what keeps a manifest or a blob', async () => {
    const child = await pushImage('app')
    const index = await pushManifest('app', indexOf([child.manifest]), 'multi')
    const signature = await pushImage('app', undefined, index)
    const untagged = await pushImage('app')
    await pass()
    const codes = async ({ digest }: { digest: Digest }) => (await explainDigest(gc, digest)).reasons
    expect(await codes(index)).toEqual([{ code: 'tagged', repository: 'library/app', tags: ['multi'] }])
    expect(await codes(child.manifest)).toEqual([{ code: 'childOf', repository: 'library/app', index: index.digest }])
    expect(await codes(signature.manifest)).toMatchObject([
      { code: 'accessoryOf', subject: index.digest, subjectPresent: true },
    ])
    expect(await codes(untagged.manifest)).toMatchObject([{ code: 'untagged', promisedUntil: null }])
    await headManifest(artifacts, may('pull', 'app'), untagged.manifest, async () => may('push', 'app'))
    expect(await codes(untagged.manifest)).toMatchObject([{ code: 'untagged', promisedUntil: expect.any(Date) }])
    expect(await codes(child.layer)).toMatchObject([
      { code: 'linked', promisedUntil: null, neededBy: [child.manifest.digest] },
    ])
    await deleteManifest(artifacts, may('delete', 'app'), untagged.manifest.digest)
    expect(await codes(untagged.manifest)).toMatchObject([{ code: 'tombstone', by: 'ann', because: 'deleted' }])
    expect(await explainDigest(gc, digestOf('never seen'))).toMatchObject({ present: false, reasons: [] })
  })
})
