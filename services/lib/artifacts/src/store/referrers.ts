import { statement, type Sql } from '@haven/db'
import type { Digest } from '@haven/oci'

/** A descriptor of a manifest that is about another. */
export type Referrer = {
  mediaType: string
  digest: string
  size: number
  artifactType?: string
  annotations?: Record<string, string>
}
type Row = {
  position: string
  mediaType: string
  digest: string
  size: number
  artifactType: string | null
  annotations: Record<string, string> | null
}

// An accessory by its tag alone (cosign's `.sig`) has a subject in its row and none in its bytes: the specification lists it not. `offset 0`:
// looked for one at a time, where a join would read those of all referrers for a page of them.
const saysSo = `exists (select from artifacts.manifest_edges s where s.manifest_id = m.id and s.kind = 'subject' offset 0)`

// Bounded by bytes as well as by number: each may carry annotations as long as a manifest can be. `found` is before that bound.
const bySubject = statement<Row & { found: number }>(
  'referrers by subject',
  `select position, "mediaType", digest, size, "artifactType", annotations, found
     from (select m.id as position, m.media_type as "mediaType", m.digest, m.payload_bytes as size, m.artifact_type as "artifactType",
                  m.annotations, (count(*) over ())::int as found,
                  sum(m.payload_bytes) over (order by m.id rows between unbounded preceding and 1 preceding) as before
             from (select m.* from artifacts.manifests m
                    where m.repository_id = (select id from artifacts.repositories where project_id = $1 and path = $2 and deleted_at is null)
                      and m.subject_digest = $3 and m.deleted_at is null and ${saysSo}
                      and m.id > $4 and ($5::text is null or m.artifact_type = $5)
                    order by m.id limit $6) m) page
    where before is null or before < $7
    order by position`,
)
const byFallbackTag = statement<Row>(
  'referrers by fallback tag',
  `select e.position::text as position, e.media_type as "mediaType", e.digest, e.size_bytes::float8 as size, e.artifact_type as "artifactType",
          e.annotations
     from artifacts.repositories r
     join artifacts.tags t on t.repository_id = r.id and t.name = $3
     join artifacts.manifest_edges e on e.manifest_id = t.manifest_id and e.kind = 'child'
    where r.project_id = $1 and r.path = $2 and r.deleted_at is null and ($4::text is null or e.artifact_type = $4)
      and not exists (select from artifacts.manifests m
                       where m.repository_id = r.id and m.digest = e.digest and m.subject_digest = $5 and m.deleted_at is null and ${saysSo})
    order by e.position limit $6`,
)

// Those that say so are looked up together, and not where there are too many to be counted.
const count = statement<{ total: number }>(
  'referrers count',
  `select (case when cardinality(own.ids) = $5 then $5
             else (select count(*) from artifacts.manifest_edges s where s.manifest_id = any(own.ids) and s.kind = 'subject') end
         + (select count(*) from (
              select from artifacts.tags t
                join artifacts.manifest_edges e on e.manifest_id = t.manifest_id and e.kind = 'child'
               where t.repository_id = r.id and t.name = $4
                 and not exists (select from artifacts.manifests m
                                  where m.repository_id = r.id and m.digest = e.digest and m.subject_digest = $3 and m.deleted_at is null
                                    and ${saysSo}) limit $5) written))::int
          as total
     from artifacts.repositories r
     cross join lateral (
       select array(select m.id from artifacts.manifests m
                     where m.repository_id = r.id and m.subject_digest = $3 and m.deleted_at is null order by m.id limit $5) as ids) own
    where r.project_id = $1 and r.path = $2 and r.deleted_at is null`,
)

// By the index in whatever order of texts the database has: in all of them `g` comes behind every digit of a digest.
const beginning = statement<{ subject: Digest }>(
  'referrers subject by its beginning',
  `select subject_digest as subject from artifacts.manifests
    where repository_id = $1 and subject_digest >= $2 and subject_digest < $2 || 'g' and starts_with(subject_digest, $2) and deleted_at is null
    limit 1`,
)

type In = { projectId: number; path: string }
const descriptor = ({ mediaType, digest, size, artifactType, annotations }: Row): Referrer => ({
  mediaType,
  digest,
  size,
  ...(artifactType !== null && { artifactType }),
  ...(annotations !== null && Object.keys(annotations).length > 0 && { annotations }),
})

/**
 * Manifests whose subject is `subject`, oldest first, from the one after `after`: at most `limit`, and no more than need `maxBytes`.
 * @returns `next`: what the next page comes after; null when this is the last.
 */
export async function referrersBySubject(
  sql: Sql,
  { projectId, path }: In,
  subject: string,
  {
    after,
    artifactType,
    limit,
    maxBytes,
  }: { after: string; artifactType: string | null; limit: number; maxBytes: number },
): Promise<{ referrers: Referrer[]; next: string | null }> {
  const rows = await sql.rows(bySubject, [projectId, path, subject, after, artifactType, limit + 1, maxBytes])
  const page = rows.slice(0, limit)
  const more = (rows[0]?.found ?? 0) > page.length
  return { referrers: page.map(descriptor), next: more ? page.at(-1)!.position : null }
}

/** What clients that knew no referrers API wrote into the index under the fallback tag, without those that have a subject. */
export async function referrersByFallbackTag(
  sql: Sql,
  { projectId, path }: In,
  subject: string,
  fallbackTag: string,
  { artifactType, limit }: { artifactType: string | null; limit: number },
): Promise<Referrer[]> {
  const rows = await sql.rows(byFallbackTag, [projectId, path, fallbackTag, artifactType, subject, limit])
  return rows.map(descriptor)
}

/** How many referrers there are, of any artifact type; null for more than `most`, which nobody waits for. */
export async function countReferrersOf(
  sql: Sql,
  { projectId, path }: In,
  subject: string,
  fallbackTag: string,
  most: number,
): Promise<number | null> {
  const total = (await sql.one(count, [projectId, path, subject, fallbackTag, most + 1]))?.total ?? 0
  return total > most ? null : total
}

/** A subject of the repository's manifests whose digest begins so. */
export async function subjectBeginning(sql: Sql, repositoryId: number, text: string): Promise<Digest | null> {
  return (await sql.one(beginning, [repositoryId, text]))?.subject ?? null
}
