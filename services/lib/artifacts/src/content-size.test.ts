import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { digestOf, mediaTypes, parseReference, type Digest, type Reference } from '@haven/oci'
import { charge, usage, type ProjectFacts } from '@haven/projects'
import { MemoryStorage } from '@haven/storage'
import { testDatabase, type TestDatabase } from '@haven/testkit'
import {
  artifactDeps,
  contentSize,
  copyArtifact,
  deleteManifest,
  deleteTag,
  finishUpload,
  grant,
  labelArtifact,
  listArtifactRows,
  listArtifacts,
  listTagRows,
  listTags,
  previewDeletion,
  putManifest,
  searchArtifacts,
  startUpload,
  unlabelArtifact,
  type ArtifactDeps,
  type ArtifactRow,
  type Keyset,
  type Right,
  type RowPage,
} from './index.ts'
import { sizesOfArtifacts } from './store/sizes.ts'
import { forgetBlobs, gcDeps, purgeTombstones, unlinkBlobs, type GcDeps } from './gc/index.ts'

const SEED = Number(process.env.SIZES_SEED ?? Math.floor(Math.random() * 2 ** 31))
const STEPS = 60
const REPOSITORIES = ['one', 'two/deep', 'three']

let database: TestDatabase
let project: ProjectFacts
let artifacts: ArtifactDeps
let gc: GcDeps
const labels: number[] = []

beforeAll(async () => {
  database = await testDatabase()
  const { id } = await database.db.prisma.project.create({ data: { name: 'library', nameKey: 'library', ownerId: 1 } })
  await database.db.prisma.quota.create({ data: { projectId: id, hardBytes: 2n ** 40n } })
  for (const name of ['rc', 'lts']) {
    labels.push((await database.db.prisma.label.create({ data: { name, scope: 'g', projectId: 0 } })).id)
  }
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

/** What should be there: manifests by repository and digest, tags and labels of them, and bytes of blobs. */
class Model {
  readonly manifests = new Map<string, Manifest>()
  readonly tags = new Map<string, string>()
  readonly labels = new Map<string, Set<number>>()
  readonly blobs = new Map<Digest, number>()
  /** Blobs that repositories have, used or not, and deleted manifests: both count until they are collected. */
  readonly links = new Map<string, Set<Digest>>(REPOSITORIES.map((name) => [name, new Set()]))
  readonly tombstones = new Map<string, number>()

  key = (repository: string, digest: string) => `${repository} ${digest}`
  here = (repository: string) => [...this.manifests.values()].filter((each) => each.repository === repository)
  tagsOf = (key: string) => [...this.tags].filter(([, of]) => of === key).map(([tag]) => tag)
  find = (repository: string, digest: string) => this.manifests.get(this.key(repository, digest))
  keyOf = ({ repository, digest }: Manifest) => this.key(repository, digest)

  add(manifest: Manifest, tags: readonly string[]) {
    this.manifests.set(this.keyOf(manifest), manifest)
    this.tombstones.delete(this.keyOf(manifest))
    for (const blob of manifest.blobs) this.links.get(manifest.repository)!.add(blob)
    for (const tag of tags) this.tags.set(`${manifest.repository} ${tag}`, this.keyOf(manifest))
  }

  remove(key: string) {
    this.tombstones.set(key, this.manifests.get(key)!.size)
    this.manifests.delete(key)
    this.labels.delete(key)
    for (const [tag, of] of this.tags) if (of === key) this.tags.delete(tag)
  }

  /** What lists show: no accessories, and of what an index names only what has a tag. */
  listed = (repository: string) =>
    this.here(repository).filter(
      (each) =>
        each.subject === null &&
        (this.tagsOf(this.keyOf(each)).length > 0 ||
          !this.here(repository).some(({ children }) => children.includes(each.digest))),
    )

  /** What goes with a deletion: what hangs on it and no index names, then children that nothing else keeps, with what hangs on those. */
  doomedWith(root: Manifest): Set<Manifest> {
    const here = this.here(root.repository)
    const gone = new Set<Manifest>()
    const isNamed = ({ digest }: Manifest) => here.some((each) => !gone.has(each) && each.children.includes(digest))
    const withAccessories = (some: readonly Manifest[]) => {
      const found = new Set(some)
      for (const each of found) {
        for (const other of here)
          if (other.subject === each.digest && !gone.has(other) && !isNamed(other)) found.add(other)
      }
      return [...found]
    }
    for (let level = withAccessories([root]); level.length > 0;) {
      for (const each of level) gone.add(each)
      const orphans = here.filter(
        (each) =>
          !gone.has(each) &&
          level.some(({ children }) => children.includes(each.digest)) &&
          this.tagsOf(this.keyOf(each)).length === 0 &&
          !isNamed(each) &&
          !here.some((subject) => subject.digest === each.subject && !gone.has(subject)),
      )
      level = withAccessories(orphans)
    }
    return gone
  }

  /** What goes with a copy: children, and what hangs on any of it. */
  withAll(root: Manifest): Set<Manifest> {
    const found = new Set([root])
    for (const each of found) {
      for (const other of this.here(each.repository)) {
        if (each.children.includes(other.digest) || other.subject === each.digest) found.add(other)
      }
    }
    return found
  }

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

  /** As the quota counts. */
  heldBytes() {
    const blobs = [...new Set([...this.links.values()].flatMap((each) => [...each]))]
    const manifests = [...this.manifests.values()].map(({ size }) => size)
    return [...manifests, ...this.tombstones.values(), ...blobs.map((blob) => this.blobs.get(blob)!)].reduce(
      (sum, bytes) => sum + bytes,
      0,
    )
  }
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

/** All rows of a list, read on page by page from one end. */
async function readAll<Row>(read: (keyset: Keyset) => Promise<RowPage<Row> | null>, descending: boolean) {
  const rows: Row[] = []
  let total: number | null = null
  for (let from: Keyset['from'] = null; ;) {
    const page = await read({ descending, from, backwards: false, offset: 0, size: 3 })
    rows.push(...page!.rows)
    total ??= page!.total
    if (!page!.more) return { rows, total }
    from = page!.rows.at(-1)!.key
  }
}

const told = {
  onFailure(error: unknown) {
    throw error
  },
}

/** Everything that is told of what is there, against the model. */
async function compare(model: Model) {
  const rows = await database.db.prisma.manifest.findMany({ where: { deletedAt: null }, include: { repository: true } })
  expect(new Set(rows.map(({ repository, digest }) => model.key(repository.path, digest)))).toEqual(
    new Set(model.manifests.keys()),
  )
  const sizes = await sizesOfArtifacts(
    database.db.writes,
    project.id,
    rows.map(({ id }) => Number(id)),
  )
  const sizeOf = (manifest: Manifest) => ({
    totalBytes: model.total(model.tree(manifest)),
    uniqueBytes: model.unique(manifest),
  })
  for (const { id, digest, repository } of rows) {
    expect([repository.path, digest, sizes.get(Number(id))]).toEqual([
      repository.path,
      digest,
      sizeOf(model.find(repository.path, digest)!),
    ])
  }
  let unique = 0
  for (const path of REPOSITORIES) {
    const size = await contentSize(artifacts, { projectId: project.id, path })
    if (size) {
      expect([path, size]).toMatchObject([path, model.repository(path)])
      await compareLists(model, path, sizeOf)
    }
    unique += size?.uniqueBytes ?? 0
  }
  const found = await readAll(
    (keyset) => searchArtifacts(artifacts, [project], { terms: [], labels: new Map() }, keyset, told),
    true,
  )
  expect(found.rows.map(({ path, digest }) => model.key(path, digest)).toSorted()).toEqual(
    REPOSITORIES.flatMap((path) => model.listed(path).map(model.keyOf)).toSorted(),
  )
  const whole = (await contentSize(artifacts, { projectId: project.id }))!
  expect(whole).toMatchObject({ totalBytes: model.projectBytes(), uniqueBytes: unique })
  expect(whole.totalBytes + whole.idleBytes).toBe(model.heldBytes())
  expect((await usage(database.db.writes, project.id))!.usedBytes).toBe(model.heldBytes())
}

async function compareLists(model: Model, path: string, sizeOf: (manifest: Manifest) => object) {
  const place = { project, path }
  const listed = model.listed(path)
  type Row = { digest: string; size: object; tags: string[]; labels: number[]; accessories: string[] }
  const shown = (each: Manifest): Row => ({
    digest: each.digest,
    size: sizeOf(each),
    tags: model.tagsOf(model.keyOf(each)).map((tag) => tag.split(' ')[1]!),
    labels: [...(model.labels.get(model.keyOf(each)) ?? [])],
    accessories: model
      .here(path)
      .filter(({ subject }) => subject === each.digest)
      .map(({ digest }) => digest),
  })
  const inOrder = (all: readonly Row[]) => all.toSorted((a, b) => (a.digest < b.digest ? -1 : 1))
  const sorted = (row: Row): Row => ({
    ...row,
    tags: row.tags.toSorted(),
    labels: row.labels.toSorted(),
    accessories: row.accessories.toSorted(),
  })
  const read = (row: ArtifactRow) => ({
    digest: row.digest,
    tags: row.tags?.map(({ name }) => name) ?? [],
    labels: row.labelIds ?? [],
    accessories: row.accessories?.map(({ digest }) => digest) ?? [],
  })
  const search = { terms: [], labels: new Map() }

  for (const descending of [true, false]) {
    const full = await readAll((keyset) => listArtifactRows(artifacts, place, search, keyset, told), descending)
    expect(inOrder(full.rows.map((row) => sorted({ ...read(row), size: row.size })))).toEqual(
      inOrder(listed.map((each) => sorted(shown(each)))),
    )
    expect(full.total ?? 0).toBe(listed.length)
  }
  const parts = { tags: true, labels: true, accessories: true }
  const pages: ArtifactRow[] = []
  for (let number = 1, total = 1; (number - 1) * 3 < total; number++) {
    const page = await listArtifacts(artifacts, place, { ...parts, page: { number, size: 3 } }, told)
    total = page.total
    expect(total).toBe(listed.length)
    pages.push(...page.artifacts)
  }
  expect(inOrder(pages.map((row) => sorted({ ...read(row), size: {} })))).toEqual(
    inOrder(listed.map((each) => ({ ...sorted(shown(each)), size: {} }))),
  )

  const tags = [...model.tags].flatMap(([tag, of]) => (tag.startsWith(`${path} `) ? [[tag.split(' ')[1]!, of]] : []))
  const byTag = await readAll(
    (keyset) => listTagRows(artifacts, place, { ...search, order: 'version' }, keyset, told),
    true,
  )
  expect(byTag.rows.map(({ tag, digest, size }) => [tag, model.key(path, digest), size]).toSorted()).toEqual(
    tags.map(([tag, of]) => [tag, of, sizeOf(model.manifests.get(of!)!)]).toSorted(),
  )
  const names = await listTags(artifacts, may('pull', path), { after: null, limit: 100 })
  expect(names.tags).toEqual(tags.map(([tag]) => tag).toSorted())
}

/** Does random things, and keeps the model by them. */
class Walk {
  readonly model = new Model()
  #state: number

  constructor(seed: number) {
    this.#state = seed || 1
  }

  #random = (below: number) => (this.#state = (this.#state * 48271) % 2147483647) % below
  #pick = <T>(from: readonly T[]): T | undefined => from[this.#random(Math.max(from.length, 1))]

  async step() {
    const what = this.#random(16)
    if (what < 8) await this.#push()
    else if (what === 8) await this.#untag()
    else if (what === 9) await this.#label()
    else if (what < 12) await this.#copy()
    else if (what < 15) await this.#remove()
    else await this.#collect()
  }

  async #push() {
    const repository = this.#pick(REPOSITORIES)!
    const here = this.model.here(repository)
    const isIndex = here.length > 1 && this.#random(3) === 0
    const children = isIndex ? [...new Set([this.#pick(here)!, this.#pick(here)!])] : []
    const subject = this.#random(4) === 0 ? (this.#pick(here) ?? null) : null
    const bytes = isIndex ? [] : [this.#pick(POOL)!, this.#pick(POOL)!]
    const blobs: Digest[] = []
    for (const each of bytes) {
      const digest = await pushBlob(repository, each)
      this.model.blobs.set(digest, each.length)
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
        annotations: { n: String(this.#random(3)) },
      }),
    )
    const digest = digestOf(body)
    const tag = this.#random(3) > 0 ? `t${this.#random(4)}` : null
    const reference = parseReference(tag ?? digest) as Reference
    await putManifest(artifacts, may('push', repository), { reference, mediaType, body })
    const pushed = {
      repository,
      digest,
      size: body.length,
      mediaType,
      blobs: [...new Set(blobs)],
      children: children.map((each) => each.digest),
      subject: subject?.digest ?? null,
    }
    this.model.add(pushed, tag === null ? [] : [tag])
  }

  async #untag() {
    const tag = this.#pick([...this.model.tags.keys()])
    if (tag === undefined) return
    const [repository = '', name = ''] = tag.split(' ')
    await deleteTag(artifacts, may('delete', repository), parseReference(name)!.tag!)
    this.model.tags.delete(tag)
  }

  async #copy() {
    const root = this.#pick([...this.model.manifests.values()].filter(({ subject }) => subject === null))
    const to = this.#pick(REPOSITORIES.filter((name) => name !== root?.repository))
    if (!root || to === undefined) return
    const all = [...this.model.withAll(root)]
    await copyArtifact(artifacts, may('pull', root.repository), may('push', to), root.digest)
    for (const each of all) {
      const tags = this.model.tagsOf(this.model.keyOf(each)).map((tag) => tag.split(' ')[1]!)
      this.model.add({ ...each, repository: to }, tags)
    }
  }

  async #label() {
    const on = this.#pick([...this.model.manifests.values()])
    const label = this.#pick(labels)!
    if (!on) return
    const row = await database.db.prisma.manifest.findFirstOrThrow({
      where: { digest: on.digest, deletedAt: null, repository: { path: on.repository } },
    })
    const artifact = { ...row, id: Number(row.id) }
    const has = this.model.labels.get(this.model.keyOf(on)) ?? new Set()
    this.model.labels.set(this.model.keyOf(on), has)
    const change = has.has(label) ? unlabelArtifact : labelArtifact
    await change(artifacts, may('push', on.repository), artifact, label)
    if (!has.delete(label)) has.add(label)
  }

  async #remove() {
    const doomed = this.#pick([...this.model.manifests.values()])
    if (!doomed) return
    const to = may('delete', doomed.repository)
    const preview = await previewDeletion(artifacts, to, doomed.digest)
    const before = this.model.projectBytes()
    if (preview.blockers.length > 0) {
      await expect(deleteManifest(artifacts, to, doomed.digest)).rejects.toThrow('is an index of it')
      return
    }
    await deleteManifest(artifacts, to, doomed.digest)
    const rows = await database.db.prisma.manifest.findMany({
      where: { deletedAt: null, repository: { projectId: project.id, path: doomed.repository } },
    })
    const left = new Set(rows.map(({ digest }) => digest))
    const gone = this.model.here(doomed.repository).filter(({ digest }) => !left.has(digest))
    expect(new Set(gone)).toEqual(this.model.doomedWith(doomed))
    expect(new Set(preview.goes.map(({ digest }) => digest))).toEqual(new Set(gone.map(({ digest }) => digest)))
    const keys = new Set(gone.map(({ repository, digest }) => this.model.key(repository, digest)))
    const tags = [...this.model.tags].filter(([, of]) => keys.has(of)).map(([tag]) => tag.split(' ')[1])
    expect(preview.goes.flatMap((each) => each.tags).toSorted()).toEqual(tags.toSorted())
    expect(preview.totalBytes).toBe(this.model.total(gone))
    for (const key of keys) this.model.remove(key)
    expect(preview.freedBytes).toBe(before - this.model.projectBytes())
  }

  async #collect() {
    const run = { executionId: null, actor: 'gc' }
    // What a run finds left over of a tombstone becomes one itself, for the next run.
    while ((await purgeTombstones(gc, run)).count > 0);
    for (const work of [unlinkBlobs, forgetBlobs]) await work(gc, run)
    const rows = await database.db.prisma.manifest.findMany({
      where: { deletedAt: null },
      include: { repository: true },
    })
    const left = new Set(rows.map(({ repository, digest }) => this.model.key(repository.path, digest)))
    for (const [key, { repository, digest }] of this.model.manifests) {
      if (left.has(key)) continue
      expect([key, this.model.tagsOf(key)]).toEqual([key, []])
      expect(
        this.model
          .here(repository)
          .filter((each) => left.has(this.model.key(repository, each.digest)) && each.children.includes(digest)),
      ).toEqual([])
      this.model.remove(key)
    }
    for (const path of REPOSITORIES) {
      this.model.links.set(path, new Set(this.model.here(path).flatMap(({ blobs }) => blobs)))
    }
    this.model.tombstones.clear()
    expect((await usage(database.db.writes, project.id))!.usedBytes).toBe(this.model.projectBytes())
  }
}

const POOL = Array.from({ length: 8 }, (_, n) => Buffer.alloc(1000 * 2 ** n, n + 1))

type Spoilt = [what: string, spoil: () => Promise<unknown>, repair: () => Promise<unknown>]

/** A repository with an image, two manifests, a tag and something that is listed. */
const fullOne = (model: Model) =>
  REPOSITORIES.find(
    (path) =>
      model.here(path).length > 1 &&
      model.here(path).some(({ blobs }) => blobs.length > 0) &&
      model.listed(path).some((each) => model.tagsOf(model.keyOf(each)).length > 0),
  )

/** What the comparison has to see, each with what makes it good again. */
async function spoilers(model: Model, path: string): Promise<Spoilt[]> {
  const { prisma } = database.db
  const inUse = model.here(path).find(({ blobs }) => blobs.length > 0)!
  const blob = await prisma.blob.findFirstOrThrow({ where: { digest: inUse.blobs[0]! } })
  const where = { projectId: project.id, path }
  const { id: repositoryId } = await prisma.repository.findFirstOrThrow({ where })
  const link = await prisma.blobLink.findFirstOrThrow({ where: { repositoryId, blobId: blob.id } })
  const manifest = await prisma.manifest.findFirstOrThrow({
    where: { repositoryId, digest: inUse.digest, deletedAt: null },
  })
  const tag = await prisma.tag.findFirstOrThrow({ where: { repositoryId } })
  const others = await prisma.manifest.findMany({ where: { deletedAt: null, repositoryId } })
  const other = others.find(({ id }) => id !== tag.manifestId)!
  const listed = model.listed(path)[0]!
  const shown = await prisma.manifest.findFirstOrThrow({
    where: { repositoryId, digest: listed.digest, deletedAt: null },
  })
  const label = { labelId: labels[0]!, manifestId: shown.id }
  const attach = () => prisma.artifactLabel.create({ data: label })
  const detach = () => prisma.artifactLabel.deleteMany({ where: label })
  const labelled = model.labels.get(model.keyOf(listed))?.has(label.labelId) ?? false
  const grow = (by: bigint) => prisma.blob.update({ where: { id: blob.id }, data: { sizeBytes: { increment: by } } })
  const recharge = (by: bigint) =>
    prisma.quota.update({ where: { projectId: project.id }, data: { usedBytes: { increment: by } } })
  const bury = (deletedAt: Date | null) => prisma.manifest.update({ where: { id: manifest.id }, data: { deletedAt } })
  const point = (manifestId: bigint) => prisma.tag.update({ where: { id: tag.id }, data: { manifestId } })
  return [
    ['a quota that is a byte off', () => recharge(1n), () => recharge(-1n)],
    ['a blob that is a byte larger', () => grow(1n), () => grow(-1n)],
    ['a manifest that is gone', () => bury(new Date()), () => bury(null)],
    ['a tag that points elsewhere', () => point(other.id), () => point(tag.manifestId)],
    ['a label that nobody changed', labelled ? detach : attach, labelled ? attach : detach],
    [
      'a blob that its repository has lost',
      () => prisma.blobLink.deleteMany({ where: { repositoryId, blobId: blob.id } }),
      () => prisma.blobLink.create({ data: link }),
    ],
  ]
}

describe('sizes, lists and previews of deletions', () => {
  it(`agree with a model of pushes, tags, labels, copies, deletions and collections (SIZES_SEED=${SEED})`, async () => {
    const walk = new Walk(SEED)
    for (let step = 0; step < STEPS; step++) {
      await walk.step()
      if (step % 10 === 0) await compare(walk.model)
    }
    await compare(walk.model)
    // A comparison that sees nothing would have agreed, too.
    while (fullOne(walk.model) === undefined) await walk.step()
    for (const [what, spoil, repair] of await spoilers(walk.model, fullOne(walk.model)!)) {
      await spoil()
      const seen = await compare(walk.model).then(
        () => false,
        () => true,
      )
      expect([what, seen]).toEqual([what, true])
      await repair()
    }
    await compare(walk.model)
  }, 120_000)
})
