import { statement } from '@haven/db'
import { problems } from '@haven/errors'
import { parseTag, type Digest, type Tag } from '@haven/oci'
import { UNLIMITED } from '@haven/projects'
import type { RecordDeps } from './deps.ts'
import { nameOf, type PullGrant, type PushGrant } from './grants.ts'
import { mountBlob } from './mount-blob.ts'
import { putManifest } from './put-manifest.ts'
import { requireWritable } from './require-writable.ts'

/** Manifests of one copy: an index of many platforms, each with its signatures and attestations. */
const MAX_MANIFESTS = 2_000
const MAX_DEPTH = 16
/** So that a wide image takes no longer than a few round trips, and no more connections than its share. */
const PARALLEL_MOUNTS = 4

type SourceManifest = { id: string; digest: string; mediaType: string; subject: string | null; tags: string[] | null }

// Depth-first numbers would not do: a manifest that two indexes name comes before both of them only by its greatest depth. What hangs
// on a manifest comes after it, whatever depth that has.
const tree = statement<SourceManifest>(
  'copy tree',
  `with recursive tree as (
     select m.id, m.repository_id, m.digest, m.subject_digest, 0 as depth, 0 as follows
       from artifacts.repositories r join artifacts.manifests m on m.repository_id = r.id and m.deleted_at is null
      where r.project_id = $1 and r.path = $2 and r.deleted_at is null and m.digest = $3
     union
     select n.id, n.repository_id, n.digest, n.subject_digest, n.depth, n.follows
       from tree t, lateral (
         select c.id, c.repository_id, c.digest, c.subject_digest, t.depth + 1 as depth, t.follows
           from artifacts.manifest_edges e
           join artifacts.manifests c on c.repository_id = e.repository_id and c.digest = e.digest and c.deleted_at is null
          where e.manifest_id = t.id and e.kind = 'child'
         union all
         select a.id, a.repository_id, a.digest, a.subject_digest, 0, t.follows + 1
           from artifacts.manifests a
          where a.repository_id = t.repository_id and a.subject_digest = t.digest and a.deleted_at is null) n
      where t.depth < ${MAX_DEPTH} and t.follows < ${MAX_DEPTH})
   select m.id, m.digest, m.media_type as "mediaType", m.subject_digest as subject,
          (select array_agg(g.name order by g.name) from artifacts.tags g where g.manifest_id = m.id) as tags
     from (select id, max(depth) as depth, min(follows) as follows from tree group by id) t
     join artifacts.manifests m on m.id = t.id
    order by t.follows, t.depth desc, m.id limit $4`,
)
const payload = statement<{ payload: Buffer; blobs: string[] | null }>(
  'copy payload',
  `select m.payload, (select array_agg(distinct e.digest) from artifacts.manifest_edges e
                       where e.manifest_id = m.id and e.kind in ('config', 'layer', 'foreign')) as blobs
     from artifacts.manifests m where m.id = $1 and m.deleted_at is null`,
)
// As a push counts them: manifests that the repository does not hold, not even as tombstones, and blobs that the project does not.
const missing = statement<{ bytes: number }>(
  'copy missing bytes',
  `with copied as (select m.id, m.repository_id, m.digest, m.payload_bytes from artifacts.manifests m where m.id = any($1::bigint[]))
   select ((select coalesce(sum(c.payload_bytes), 0) from copied c
             where not exists (
               select from artifacts.repositories r join artifacts.manifests m on m.repository_id = r.id and m.digest = c.digest
                where r.project_id = $2 and r.path = $3))
         + (select coalesce(sum(b.size_bytes), 0)
              from (select distinct c.repository_id, e.digest from copied c
                      join artifacts.manifest_edges e on e.manifest_id = c.id and e.kind in ('config', 'layer', 'foreign')) u
              join artifacts.blobs b on b.digest = u.digest
              join artifacts.blob_links s on s.blob_id = b.id and s.repository_id = u.repository_id
             where not exists (
               select from artifacts.blob_links k join artifacts.repositories r on r.id = k.repository_id
                where k.blob_id = b.id and r.project_id = $2)))::float8 as bytes`,
)
const pointing = statement<{ name: string }>(
  'copy tags there',
  `select t.name from artifacts.repositories r
     join artifacts.manifests m on m.repository_id = r.id and m.digest = $3 and m.deleted_at is null
     join artifacts.tags t on t.manifest_id = m.id
    where r.project_id = $1 and r.path = $2 and r.deleted_at is null`,
)

/**
 * Copies an artifact with its platforms, its tags and all that hangs on it, without moving bytes: every blob is mounted and every manifest
 * pushed, what is named before what names it, by the rules of any push. One that stops on the way leaves what it has copied, and may be
 * repeated. One that the quota has no room for leaves nothing.
 * @param signal ends it before the next manifest.
 * @throws problems.manifestUnknown; denied for what hangs on another artifact; what a push throws: quotaExceeded, tagImmutable.
 */
export async function copyArtifact(
  deps: RecordDeps,
  from: PullGrant,
  to: PushGrant,
  digest: Digest,
  { signal }: { signal?: AbortSignal } = {},
): Promise<void> {
  await requireWritable(deps)
  const source = [from.project.id, from.repository, digest, MAX_MANIFESTS + 1]
  const manifests = await deps.db.writes.rows(tree, source)
  const root = manifests.find((manifest) => manifest.digest === digest)
  if (!root) throw problems.manifestUnknown({ repository: nameOf(from), reference: digest })
  if (root.subject !== null) {
    throw problems.denied({ message: "the operation isn't supported for an artifact accessory" })
  }
  if (manifests.length > MAX_MANIFESTS) {
    throw problems.badRequest({
      message: `an artifact of more than ${MAX_MANIFESTS} manifests cannot be copied at once`,
    })
  }
  await requireRoom(deps, to, manifests)
  for (const manifest of manifests) {
    signal?.throwIfAborted()
    await copyManifest(deps, from, to, manifest)
  }
}

/** So that a copy which does not fit leaves nothing, rather than the platforms that did. @throws quotaExceeded */
async function requireRoom({ db, policies }: RecordDeps, to: PushGrant, manifests: readonly SourceManifest[]) {
  if (to.project.quotaBytes === UNLIMITED) return
  const now = await policies.quotaUsage?.(db.writes, to.project.id)
  if (!now || now.hardBytes === UNLIMITED) return
  const ids = manifests.map(({ id }) => id)
  const { bytes } = (await db.writes.one(missing, [ids, to.project.id, to.repository]))!
  if (bytes === 0 || now.usedBytes + bytes <= now.hardBytes) return
  throw problems.quotaExceeded({ addedBytes: bytes, usedBytes: now.usedBytes, limitBytes: now.hardBytes })
}

async function copyManifest(deps: RecordDeps, from: PullGrant, to: PushGrant, manifest: SourceManifest) {
  const { digest, mediaType } = manifest as SourceManifest & { digest: Digest }
  const found = await deps.db.writes.one(payload, [manifest.id])
  if (!found) throw problems.manifestUnknown({ repository: nameOf(from), reference: digest })
  const blobs = [...(found.blobs ?? [])] as Digest[]
  const mountNext = async () => {
    for (let blob = blobs.pop(); blob !== undefined; blob = blobs.pop()) await mountBlob(deps, to, from, blob)
  }
  await Promise.all(Array.from({ length: PARALLEL_MOUNTS }, mountNext))
  // A tag that points there already is left alone, so that a copy can be repeated although the tag is immutable.
  const there = await deps.db.writes.rows(pointing, [to.project.id, to.repository, digest])
  const tags = (manifest.tags ?? []).filter((name) => !there.some((tag) => tag.name === name)).map(parseTag)
  await putManifest(deps, to, {
    reference: { digest },
    tags: tags.filter((tag): tag is Tag => tag !== null),
    mediaType,
    body: found.payload,
  })
}
