import { createHash } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { statement, type Database } from '@haven/db'
import { algorithmOf, isSupportedAlgorithm, type Digest } from '@haven/oci'
import { ObjectMissing, ObjectTruncated, type BlobStorage, type StoredObject } from '@haven/storage'
import { readersHaveHeard } from '../recent-answers.ts'

export type FindingKind = 'missing' | 'corrupt' | 'orphan' | 'size'

export type Finding = {
  kind: FindingKind
  store: string
  key: string
  /** Of the record; null for an orphan. */
  digest: string | null
  /** By the record; null for an orphan. */
  expectedBytes: number | null
  /** In the store; null when there is no object. */
  actualBytes: number | null
  /** Repositories that link it, by project id and path, ten at most. */
  repositories: { projectId: number; path: string }[]
}

export type VerifyOptions = {
  /** Only these; default everything. */
  digests?: readonly string[]
  /** Read and hash every byte. */
  deep?: boolean
  /** Bytes a second that a deep verification reads at most. */
  maxBytesPerSecond?: number
  /** An object without record that is younger is not told of: its record may be on its way. Default an hour. */
  orphanAgeMs?: number
  signal?: AbortSignal
}

/** A difference, or how far the verification is when `finding` is absent. */
export type Verified = { finding?: Finding; objects: number; objectBytes: number }

type Location = { key: string; digest: string; size_bytes: string }

const PAGE = 500
const PARALLEL = 16
const HOUR_MS = 3_600_000

const locations = statement<Location>(
  'verify locations',
  `select l.key, b.digest, b.size_bytes from artifacts.blob_locations l join artifacts.blobs b on b.id = l.blob_id
    where l.store = $1 and l.key > $2 and ($3::text[] is null or b.digest = any($3::text[]))
    order by l.key limit ${PAGE}`,
)
const location = statement<Location>(
  'verify location',
  `select l.key, b.digest, b.size_bytes from artifacts.blob_locations l join artifacts.blobs b on b.id = l.blob_id
    where l.store = $1 and l.key = $2`,
)
const linking = statement<{ project_id: number; path: string }>(
  'verify linking',
  `select r.project_id, r.path from artifacts.blobs b join artifacts.blob_links k on k.blob_id = b.id
     join artifacts.repositories r on r.id = k.repository_id where b.digest = $1 order by r.id limit 10`,
)
// One statement, one snapshot: an object moves from upload to location, or from location to trash, in one transaction.
const unknownKeys = statement<{ key: string }>(
  'verify unknown keys',
  `select g.key from unnest($1::text[]) as g(key)
    where not exists (select from artifacts.blob_locations l where l.key = g.key)
      and not exists (select from artifacts.uploads u where u.key = g.key)
      and not exists (select from artifacts.trash t where t.key = g.key)`,
)

/**
 * Compares records and store in both directions and tells each difference as it is found. Changes nothing and may run while
 * everything else does: what it tells was true when it looked, and `repairStore` looks again.
 */
export async function* verifyStore(
  db: Database,
  storage: BlobStorage,
  options: VerifyOptions = {},
): AsyncGenerator<Verified> {
  const seen = { objects: 0, objectBytes: 0 }
  for (let after = ''; ;) {
    const page = await db.writes.rows(locations, [storage.name, after, options.digests ?? null])
    for (let from = 0; from < page.length; from += PARALLEL) {
      options.signal?.throwIfAborted()
      const some = page.slice(from, from + PARALLEL)
      const findings = await Promise.all(some.map((row) => checkRecord(db, storage, row, options)))
      for (const row of some) {
        seen.objects++
        seen.objectBytes += Number(row.size_bytes)
      }
      for (const finding of findings) if (finding) yield { finding, ...seen }
    }
    yield { ...seen }
    if (page.length < PAGE) break
    after = page.at(-1)!.key
  }
  if (options.digests === undefined) yield* orphans(db, storage, options, seen)
}

/** What is wrong with the object of a record now; null when nothing is, or when the record went meanwhile. */
async function checkRecord(
  db: Database,
  storage: BlobStorage,
  row: Location,
  { deep = false, maxBytesPerSecond, signal }: VerifyOptions,
): Promise<Finding | null> {
  const wrong = await inspect(storage, row, { deep, maxBytesPerSecond, signal })
  if (wrong === null || !(await db.writes.one(location, [storage.name, row.key]))) return null
  const repositories = await db.writes.rows(linking, [row.digest])
  return {
    ...wrong,
    store: storage.name,
    key: row.key,
    digest: row.digest,
    expectedBytes: Number(row.size_bytes),
    repositories: repositories.map(({ project_id, path }) => ({ projectId: project_id, path })),
  }
}

async function inspect(
  storage: BlobStorage,
  row: Location,
  {
    deep,
    maxBytesPerSecond,
    signal,
  }: { deep: boolean; maxBytesPerSecond: number | undefined; signal: AbortSignal | undefined },
): Promise<{ kind: FindingKind; actualBytes: number | null } | null> {
  const expected = Number(row.size_bytes)
  const found = await storage.stat(row.key)
  if (!found) return { kind: 'missing', actualBytes: null }
  if (found.sizeBytes !== expected) return { kind: 'size', actualBytes: found.sizeBytes }
  const algorithm = algorithmOf(row.digest as Digest)
  if (!deep || !isSupportedAlgorithm(algorithm)) return null
  const startedAt = performance.now()
  const hash = createHash(algorithm)
  try {
    await storage.send(row.key, { offset: 0, length: expected }, hash, signal)
  } catch (error) {
    if (error instanceof ObjectMissing) return { kind: 'missing', actualBytes: null }
    if (error instanceof ObjectTruncated) return { kind: 'corrupt', actualBytes: null }
    throw new Error(`reading ${row.key}`, { cause: error })
  }
  if (maxBytesPerSecond) {
    // Each of those that read at the same time gets its share.
    const dueMs = (expected * PARALLEL * 1000) / maxBytesPerSecond - (performance.now() - startedAt)
    if (dueMs > 0) await sleep(dueMs, undefined, signal && { signal })
  }
  return `${algorithm}:${hash.digest('hex')}` === row.digest ? null : { kind: 'corrupt', actualBytes: found.sizeBytes }
}

async function* orphans(
  db: Database,
  storage: BlobStorage,
  { orphanAgeMs = HOUR_MS, signal }: VerifyOptions,
  seen: { objects: number; objectBytes: number },
): AsyncGenerator<Verified> {
  let page: StoredObject[] = []
  const youngest = Date.now() - orphanAgeMs
  const check = async () => {
    const unknown = new Set(
      (await db.writes.rows(unknownKeys, [page.map((object) => object.key)])).map((row) => row.key),
    )
    const found = page.filter((object) => unknown.has(object.key))
    page = []
    return found.map<Verified>(({ key, sizeBytes }) => ({
      finding: {
        kind: 'orphan',
        store: storage.name,
        key,
        digest: null,
        expectedBytes: null,
        actualBytes: sizeBytes,
        repositories: [],
      },
      ...seen,
    }))
  }
  for await (const object of storage.list()) {
    signal?.throwIfAborted()
    if (object.modifiedAt.getTime() > youngest) continue
    page.push(object)
    if (page.length === PAGE) yield* await check()
  }
  for await (const { key, startedAt } of storage.listUnfinished()) {
    signal?.throwIfAborted()
    if (startedAt.getTime() > youngest) continue
    page.push({ key, sizeBytes: 0, modifiedAt: startedAt })
    if (page.length === PAGE) yield* await check()
  }
  yield* await check()
}

export type RepairAction = 'none' | 'relocated' | 'dropped' | 'trashed'
export type Repaired = { finding: Finding; action: RepairAction; reason: string }

const markDamaged = statement<{ id: string }>(
  'repair mark damaged',
  `update artifacts.blobs b set damaged_at = coalesce(b.damaged_at, now())
     from artifacts.blob_locations l where l.blob_id = b.id and l.store = $1 and l.key = $2 returning b.id`,
)
const dropLocation = statement<{ key: string }>(
  'repair drop location',
  `with gone as (
     delete from artifacts.blob_locations l
      where l.store = $1 and l.key = $2
        and exists (select from artifacts.blob_locations o where o.blob_id = l.blob_id and o.store <> l.store)
     returning l.key, l.store),
   trashed as (
     insert into artifacts.trash (key, store, digest, size_bytes, reason, erase_after)
     select key, store, $3, $4, 'damaged', now() + $5 * interval '1 second' from gone on conflict (key) do nothing)
   select key from gone`,
)
const trashOrphan = statement<{ key: string }>(
  'repair trash orphan',
  `insert into artifacts.trash (key, store, size_bytes, reason, erase_after)
   select $2, $1, $3, 'orphan', now() + $4 * interval '1 second'
    where not exists (select from artifacts.blob_locations where key = $2)
      and not exists (select from artifacts.uploads where key = $2)
   on conflict (key) do nothing returning key`,
)

/**
 * Puts right what a verification found, after looking at each once more. A blob whose bytes are damaged answers as absent from now
 * on, so that the next push brings them back; an object without a record goes to the trash.
 */
export async function repairStore(
  db: Database,
  storage: BlobStorage,
  findings: readonly Finding[],
  { dryRun = false, trashSeconds, signal }: { dryRun?: boolean; trashSeconds: number; signal?: AbortSignal },
): Promise<Repaired[]> {
  const repaired: Repaired[] = []
  for (const finding of findings) {
    signal?.throwIfAborted()
    repaired.push({ finding, ...(await repair(db, storage, finding, { dryRun, trashSeconds })) })
  }
  if (repaired.some(({ action }) => action === 'dropped' || action === 'relocated')) await readersHaveHeard(db)
  return repaired
}

async function repair(
  db: Database,
  storage: BlobStorage,
  { kind, store, key, actualBytes }: Finding,
  { dryRun, trashSeconds }: { dryRun: boolean; trashSeconds: number },
): Promise<{ action: RepairAction; reason: string }> {
  if (store !== storage.name) return { action: 'none', reason: `${store} is not the store that is open here` }
  if (kind === 'orphan') {
    if (dryRun) return { action: 'trashed', reason: '' }
    const trashed = await db.writes.one(trashOrphan, [store, key, actualBytes ?? 0, trashSeconds])
    return trashed ? { action: 'trashed', reason: '' } : { action: 'none', reason: 'a record points at it now' }
  }
  const row = await db.writes.one(location, [store, key])
  if (!row) return { action: 'none', reason: 'the record is gone' }
  const wrong = await inspect(storage, row, {
    deep: kind === 'corrupt',
    maxBytesPerSecond: undefined,
    signal: undefined,
  })
  if (!wrong) return { action: 'none', reason: 'the object is as it should be' }
  if (dryRun) return { action: 'dropped', reason: '' }
  if (await db.writes.one(dropLocation, [store, key, row.digest, actualBytes ?? 0, trashSeconds])) {
    return { action: 'relocated', reason: '' }
  }
  // The location itself stays: the push that replaces it takes the damaged object to the trash.
  await db.writes.one(markDamaged, [store, key])
  return { action: 'dropped', reason: '' }
}

const statistics = statement<{ objects: number; bytes: number; trash: number; trash_bytes: number }>(
  'store statistics',
  `select (select count(*) from artifacts.blob_locations where store = $1)::int as objects,
          (select coalesce(sum(b.size_bytes), 0) from artifacts.blob_locations l join artifacts.blobs b on b.id = l.blob_id
            where l.store = $1)::float8 as bytes,
          (select count(*) from artifacts.trash where store = $1)::int as trash,
          (select coalesce(sum(size_bytes), 0) from artifacts.trash where store = $1)::float8 as trash_bytes`,
)

export type StoreStatistics = { store: string; objects: number; objectBytes: number; trash: number; trashBytes: number }

/** What records say of a store. */
export async function storeStatistics(db: Database, store: string): Promise<StoreStatistics> {
  const row = (await db.writes.one(statistics, [store]))!
  return { store, objects: row.objects, objectBytes: row.bytes, trash: row.trash, trashBytes: row.trash_bytes }
}
