import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { problems } from '@haven/errors'
import { ensurePresets } from '@haven/identity'
import { digestOf, parseTag } from '@haven/oci'
import { charge, createProject, ProjectDirectory, type ProjectFacts } from '@haven/projects'
import { MemoryStorage } from '@haven/storage'
import { rowsRead, statementsOf, testDatabase, type TestDatabase } from '@haven/testkit'
import {
  artifactDeps,
  deleteManifest,
  deleteTag,
  getManifest,
  grant,
  headManifest,
  putManifest,
  type ArtifactDeps,
} from './index.ts'
import { getManifestRow } from './store/manifests.ts'

let database: TestDatabase
const projects: ProjectFacts[] = []

beforeAll(async () => {
  database = await testDatabase()
  await ensurePresets(database.db)
  using directory = new ProjectDirectory(database.db)
  const source = { principal: { kind: 'user' as const, id: 1, name: 'ann' } }
  for (const name of ['acme', 'secret']) {
    await createProject({ db: database.db, directory }, source, { name, ownerId: 1 })
    projects.push((await directory.byName(name))!)
  }
})
afterAll(async () => {
  await database[Symbol.asyncDispose]()
})

/** With nothing in memory. */
const fresh = (): ArtifactDeps =>
  artifactDeps({
    db: database.db,
    storage: new MemoryStorage(),
    policies: { quota: charge },
    settings: { sparseIndexes: true },
  })

const facts = (project: ProjectFacts, repository: string) => ({
  project,
  repository,
  principal: { kind: 'user' as const, id: 1, name: 'ann' },
  requestId: 'r1',
  door: 'registry' as const,
})
const pulling = (repository: string, project = projects[0]!) => grant('pull', facts(project, repository))
const tag = (name: string) => ({ tag: parseTag(name)! })
const mediaType = 'application/vnd.oci.image.index.v1+json'
const bodyOf = (note: string) =>
  Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType, manifests: [], annotations: { note: `ü ${note}` } }))

async function push(repository: string, name: string, project = projects[0]!) {
  const body = bodyOf(`${project.name}/${repository}:${name}`)
  await putManifest(fresh(), grant('push', facts(project, repository)), { reference: tag(name), mediaType, body })
  return { body, digest: digestOf(body) }
}

const names = Array.from({ length: 16 }, (_, n) => `v${n}`)
/** Of statements that look for manifests: what others have taken away is asked for beside them. */
const searches = async (work: () => Promise<unknown>) =>
  (await statementsOf(work)).filter((text) => text.includes('artifacts.manifests')).length

describe('getManifest of what is not in memory', () => {
  it('asks Postgres once for all that are wanted in one turn, by tag, by digest and without bytes', async () => {
    const pushed: { body: Buffer; digest: ReturnType<typeof digestOf> }[] = []
    for (const name of names) pushed.push(await push('app', name))
    const deps = fresh()
    const byTag = await searches(async () => {
      const pulled = await Promise.all(names.map((name) => getManifest(deps, pulling('app'), tag(name))))
      expect(pulled.map(({ payload }) => payload)).toEqual(pushed.map(({ body }) => body))
    })
    const byDigest = await searches(async () => {
      const digests = pushed.map(({ digest }) => digest)
      const cold = fresh()
      const pulled = await Promise.all(digests.map((digest) => getManifest(cold, pulling('app'), { digest })))
      expect(pulled.map(({ payload, digest, mediaType: type }) => [payload, digest, type])).toEqual(
        pushed.map(({ body, digest }) => [body, digest, mediaType]),
      )
    })
    const heads = await searches(async () => {
      const cold = fresh()
      const found = await Promise.all(names.map((name) => headManifest(cold, pulling('app'), tag(name))))
      expect(found.map(({ digest }) => digest)).toEqual(pushed.map(({ digest }) => digest))
    })
    expect([byTag, byDigest, heads]).toEqual([1, 1, 1])
  })

  it('R10: gives each of those who ask together his own answer: what is there, unknown, deleted, and another project’s', async () => {
    const there = await push('side', 'there')
    const gone = await push('side', 'gone')
    const moved = await push('side', 'untagged')
    const hidden = await push('side', 'hidden', projects[1])
    await push('other', 'elsewhere')
    const deleting = grant('delete', facts(projects[0]!, 'side'))
    await deleteManifest(fresh(), deleting, gone.digest)
    await deleteTag(fresh(), deleting, parseTag('untagged')!)

    const deps = fresh()
    const asked = [
      getManifest(deps, pulling('side'), tag('there')),
      getManifest(deps, pulling('side'), tag('missing')),
      getManifest(deps, pulling('side'), tag('gone')),
      getManifest(deps, pulling('side'), { digest: gone.digest }),
      getManifest(deps, pulling('side'), tag('untagged')),
      getManifest(deps, pulling('side'), { digest: moved.digest }),
      getManifest(deps, pulling('side'), tag('hidden')),
      getManifest(deps, pulling('side'), { digest: hidden.digest }),
      getManifest(deps, pulling('side', projects[1]), tag('hidden')),
      getManifest(deps, pulling('side'), tag('elsewhere')),
      getManifest(deps, pulling('nowhere'), tag('there')),
      getManifest(deps, pulling('side'), { digest: there.digest }),
    ]
    const answers = (await Promise.allSettled(asked)).map((outcome) => {
      if (outcome.status === 'fulfilled') return outcome.value.payload.toString()
      if (problems.nameUnknown.is(outcome.reason)) return 'no such repository'
      return problems.manifestUnknown.is(outcome.reason) ? 'no such manifest' : outcome.reason
    })
    const none = 'no such manifest'
    expect(answers).toEqual([
      there.body.toString(),
      none,
      none,
      none,
      none,
      moved.body.toString(),
      none,
      none,
      hidden.body.toString(),
      none,
      'no such repository',
      there.body.toString(),
    ])
  })

  it('is looked for by its keys, however many others there are', async () => {
    const { db } = database
    const first = await push('wide', 'first')
    const { id } = (await db.prisma.repository.findFirst({ where: { projectId: projects[0]!.id, path: 'wide' } }))!
    await db.prisma.$executeRaw`
      insert into artifacts.manifests (repository_id, digest, media_type, kind, type, payload, payload_bytes, total_bytes, pushed_by, promised_until)
      select ${id}, 'sha256:' || encode(sha256(n::text::bytea), 'hex'), 'x', 'image', 'IMAGE', '{}', 2, 2, 'ann', now() from generate_series(1, 2000) n`
    await db.prisma.$executeRaw`
      insert into artifacts.tags (repository_id, name, manifest_id)
      select repository_id, 'w' || id, id from artifacts.manifests where repository_id = ${id} and media_type = 'x'`
    await db.prisma.$executeRaw`analyze artifacts.manifests, artifacts.tags, artifacts.repositories`
    const where = { projectId: projects[0]!.id, path: 'wide' }
    const read = await rowsRead(db, (tx) => getManifestRow(tx, where, tag('first')))
    expect(Math.max(...read.slice(-3))).toBeLessThan(20)
    const byDigest = await rowsRead(db, (tx) => getManifestRow(tx, where, { digest: first.digest }))
    expect(Math.max(...byDigest.slice(-3))).toBeLessThan(20)
  })
})
