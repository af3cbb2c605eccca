import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { digestOf, mediaTypes, parseReference, type Digest, type Reference } from '@haven/oci'
import { charge, usage, type ProjectFacts } from '@haven/projects'
import { MemoryStorage } from '@haven/storage'
import { testDatabase, type TestDatabase } from '@haven/testkit'
import {
  artifactDeps,
  contentSize,
  deleteManifest,
  deleteTag,
  finishUpload,
  grant,
  previewDeletion,
  putManifest,
  sizesOfArtifacts,
  startUpload,
  type ArtifactDeps,
  type Right,
} from './index.ts'
import { forgetBlobs, gcDeps, purgeTombstones, unlinkBlobs, type GcDeps } from './gc/index.ts'

const SEED = Number(process.env.SIZES_SEED ?? Math.floor(Math.random() * 2 ** 31))
const STEPS = 60
const REPOSITORIES = ['one', 'two/deep', 'three']

let database: TestDatabase
let project: ProjectFacts
let artifacts: ArtifactDeps
let gc: GcDeps

beforeAll(async () => {
  database = await testDatabase()
  const { id } = await database.db.prisma.project.create({ data: { name: 'library', nameKey: 'library', ownerId: 1 } })
  await database.db.prisma.quota.create({ data: { projectId: id, hardBytes: 2n ** 40n } })
  const facts = { ownerId: 1, registryId: null, metadata: {}, immutableRules: [], quotaBytes: -1 }
  project = { ...facts, id, name: 'library', public: true, createdAt: new Date(), updatedAt: new Date() }
  const settings = { promiseSeconds: 0, trashSeconds: 0, tombstoneSeconds: 0 }
  artifacts = artifactDeps({ db: database.db, storage: new MemoryStorage(), settings, policies: { quota: charge } })
  gc = gcDeps({ db: database.db, settings, quota: charge, projects: { byId: async () => project } })
})
afterAll(async () => database[Symbol.asyncDispose]())

const may = <R extends Right>(right: R, repository: string) =>
  grant(right, {
    project,
    repository,
    principal: { kind: 'user', id: 1, name: 'ann' },
    requestId: 'r',
    door: 'registry',
  })

type Manifest = {
  repository: string
  digest: Digest
  size: number
  mediaType: string
  blobs: Digest[]
  children: Digest[]
  subject: Digest | null
}

/** What should be there: manifests by repository and digest, tags, and bytes of blobs. */
class Model {
  readonly manifests = new Map<string, Manifest>()
  readonly tags = new Map<string, string>()
  readonly blobs = new Map<Digest, number>()

  key = (repository: string, digest: string) => `${repository} ${digest}`
  here = (repository: string) => [...this.manifests.values()].filter((each) => each.repository === repository)
  tagsOf = (key: string) => [...this.tags].filter(([, of]) => of === key).map(([tag]) => tag)
  find = (repository: string, digest: string) => this.manifests.get(this.key(repository, digest))

  tree(root: Manifest): Set<Manifest> {
    const found = new Set([root])
    for (const each of found) {
      for (const child of each.children) {
        const there = this.find(each.repository, child)
        if (there) found.add(there)
      }
    }
    return found
  }

  /** Of a tree, without what a tag, an index or a subject outside of it keeps, and what hangs below that. */
  owned(root: Manifest): Set<Manifest> {
    const tree = this.tree(root)
    const inside = (each: Manifest | undefined) => each === undefined || tree.has(each)
    const stays = new Set(
      [...tree].filter(
        (each) =>
          each !== root &&
          (this.tagsOf(this.key(each.repository, each.digest)).length > 0 ||
            this.here(each.repository).some((index) => index.children.includes(each.digest) && !tree.has(index)) ||
            (each.subject !== null && !inside(this.find(each.repository, each.subject)))),
      ),
    )
    for (const each of stays) for (const below of this.tree(each)) if (below !== root) stays.add(below)
    return new Set([...tree].filter((each) => !stays.has(each)))
  }

  /** Bytes of the content of manifests, each once. */
  total(of: Iterable<Manifest>): number {
    const all = [...of]
    const blobs = new Set(all.flatMap((each) => each.blobs))
    return (
      all.reduce((sum, { size }) => sum + size, 0) + [...blobs].reduce((sum, blob) => sum + this.blobs.get(blob)!, 0)
    )
  }

  unique(root: Manifest): number {
    const owned = this.owned(root)
    const others = new Set(
      [...this.manifests.values()].filter((each) => !owned.has(each)).flatMap((each) => each.blobs),
    )
    const blobs = new Set([...owned].flatMap((each) => each.blobs).filter((blob) => !others.has(blob)))
    return (
      [...owned].reduce((sum, { size }) => sum + size, 0) +
      [...blobs].reduce((sum, blob) => sum + this.blobs.get(blob)!, 0)
    )
  }

  repository(name: string) {
    const here = this.here(name)
    const elsewhere = new Set(
      [...this.manifests.values()].filter(({ repository }) => repository !== name).flatMap((each) => each.blobs),
    )
    const shared = [...new Set(here.flatMap((each) => each.blobs))].filter((blob) => elsewhere.has(blob))
    const totalBytes = this.total(here)
    return { totalBytes, uniqueBytes: totalBytes - shared.reduce((sum, blob) => sum + this.blobs.get(blob)!, 0) }
  }

  projectBytes = () => this.total(this.manifests.values())
}

async function pushBlob(repository: string, bytes: Buffer): Promise<Digest> {
  const to = may('push', repository)
  const { id } = await startUpload(artifacts, to)
  const digest = digestOf(bytes)
  const source = (async function* () {
    yield bytes
  })()
  await finishUpload(artifacts, to, id, { digest, chunk: { source, offsetBytes: null, sizeBytes: bytes.length } })
  return digest
}

describe('sizes and previews of deletions', () => {
  it(`agree with a model of pushes, tags, deletions and collections (SIZES_SEED=${SEED})`, async () => {
    let state = SEED || 1
    const random = (below: number) => (state = (state * 48271) % 2147483647) % below
    const pick = <T>(from: readonly T[]): T | undefined => from[random(Math.max(from.length, 1))]
    const pool = Array.from({ length: 8 }, (_, n) => Buffer.alloc(1000 * 2 ** n, n + 1))
    const model = new Model()

    async function push() {
      const repository = pick(REPOSITORIES)!
      const here = model.here(repository)
      const isIndex = here.length > 1 && random(3) === 0
      const children = isIndex ? [...new Set([pick(here)!, pick(here)!])] : []
      const subject = random(4) === 0 ? (pick(here) ?? null) : null
      const bytes = isIndex ? [] : [pick(pool)!, pick(pool)!]
      const blobs: Digest[] = []
      for (const each of bytes) {
        const digest = await pushBlob(repository, each)
        model.blobs.set(digest, each.length)
        blobs.push(digest)
      }
      const named = (of: Manifest) => ({ mediaType: of.mediaType, digest: of.digest, size: of.size })
      const blob = (n: number, mediaType: string) => ({ mediaType, digest: blobs[n], size: bytes[n]!.length })
      const mediaType = isIndex ? mediaTypes.ociIndex : mediaTypes.ociManifest
      const body = Buffer.from(
        JSON.stringify({
          schemaVersion: 2,
          mediaType,
          ...(isIndex
            ? { manifests: children.map(named) }
            : { config: blob(0, mediaTypes.ociConfig), layers: [blob(1, 'application/vnd.oci.image.layer.v1.tar')] }),
          ...(subject && { subject: named(subject) }),
          annotations: { n: String(random(3)) },
        }),
      )
      const digest = digestOf(body)
      const tag = random(3) > 0 ? `t${random(4)}` : null
      const reference = parseReference(tag ?? digest) as Reference
      await putManifest(artifacts, may('push', repository), { reference, mediaType, body })
      model.manifests.set(model.key(repository, digest), {
        repository,
        digest,
        size: body.length,
        mediaType,
        blobs: [...new Set(blobs)],
        children: children.map((each) => each.digest),
        subject: subject?.digest ?? null,
      })
      if (tag !== null) model.tags.set(`${repository} ${tag}`, model.key(repository, digest))
    }

    async function untag() {
      const tag = pick([...model.tags.keys()])
      if (tag === undefined) return
      const [repository = '', name = ''] = tag.split(' ')
      await deleteTag(artifacts, may('delete', repository), parseReference(name)!.tag!)
      model.tags.delete(tag)
    }

    /** Does what was announced, and nothing else. */
    async function remove() {
      const doomed = pick([...model.manifests.values()])
      if (!doomed) return
      const to = may('delete', doomed.repository)
      const preview = await previewDeletion(artifacts, to, doomed.digest)
      const before = model.projectBytes()
      if (preview.blockers.length > 0) {
        await expect(deleteManifest(artifacts, to, doomed.digest)).rejects.toThrow('is an index of it')
        return
      }
      await deleteManifest(artifacts, to, doomed.digest)
      const rows = await database.db.prisma.manifest.findMany({
        where: { deletedAt: null, repository: { projectId: project.id, path: doomed.repository } },
      })
      const left = new Set(rows.map(({ digest }) => digest))
      const gone = model.here(doomed.repository).filter(({ digest }) => !left.has(digest))
      expect(new Set(preview.goes.map(({ digest }) => digest))).toEqual(new Set(gone.map(({ digest }) => digest)))
      const keys = new Set(gone.map(({ repository, digest }) => model.key(repository, digest)))
      const tags = [...model.tags].filter(([, of]) => keys.has(of)).map(([tag]) => tag.split(' ')[1])
      expect(preview.goes.flatMap((each) => each.tags).toSorted()).toEqual(tags.toSorted())
      expect(preview.totalBytes).toBe(model.total(gone))
      for (const key of keys) model.manifests.delete(key)
      for (const [tag, of] of model.tags) if (keys.has(of)) model.tags.delete(tag)
      expect(preview.freedBytes).toBe(before - model.projectBytes())
    }

    /** Takes what was left over of a deletion and what nothing keeps any more. */
    async function collect() {
      for (const work of [purgeTombstones, unlinkBlobs, forgetBlobs]) await work(gc, { executionId: null, actor: 'gc' })
      const rows = await database.db.prisma.manifest.findMany({
        where: { deletedAt: null },
        include: { repository: true },
      })
      const left = new Set(rows.map(({ repository, digest }) => model.key(repository.path, digest)))
      for (const [key, { repository, digest }] of model.manifests) {
        if (left.has(key)) continue
        expect([key, model.tagsOf(key)]).toEqual([key, []])
        expect(
          model
            .here(repository)
            .filter((each) => left.has(model.key(repository, each.digest)) && each.children.includes(digest)),
        ).toEqual([])
        model.manifests.delete(key)
      }
    }

    async function compare() {
      const rows = await database.db.prisma.manifest.findMany({
        where: { deletedAt: null },
        include: { repository: true },
      })
      expect(new Set(rows.map(({ repository, digest }) => model.key(repository.path, digest)))).toEqual(
        new Set(model.manifests.keys()),
      )
      const sizes = await sizesOfArtifacts(
        database.db.writes,
        project.id,
        rows.map(({ id }) => Number(id)),
      )
      for (const { id, digest, repository } of rows) {
        const manifest = model.find(repository.path, digest)!
        const expected = { totalBytes: model.total(model.tree(manifest)), uniqueBytes: model.unique(manifest) }
        expect([repository.path, digest, sizes.get(Number(id))]).toEqual([repository.path, digest, expected])
      }
      let unique = 0
      for (const path of REPOSITORIES) {
        const size = await contentSize(artifacts, { projectId: project.id, path })
        if (size) expect([path, size]).toMatchObject([path, model.repository(path)])
        unique += size?.uniqueBytes ?? 0
      }
      const whole = (await contentSize(artifacts, { projectId: project.id }))!
      expect(whole).toMatchObject({ totalBytes: model.projectBytes(), uniqueBytes: unique })
      expect(whole.totalBytes + whole.idleBytes).toBe((await usage(database.db.writes, project.id))!.usedBytes)
    }

    for (let step = 0; step < STEPS; step++) {
      const what = random(10)
      if (what < 6) await push()
      else if (what === 6) await untag()
      else if (what < 9) await remove()
      else await collect()
      if (step % 5 === 0) await compare()
    }
    await compare()
  }, 60_000)
})
