import { statement, type Sql } from '@haven/db'
import type { Annotations } from '@haven/oci'

/** What hangs on an artifact and is no manifest. */
export type BlobRow = {
  kind: 'config' | 'layer' | 'foreign'
  digest: string
  mediaType: string
  /** Of the blob; of one that the repository lacks, what the manifest says. */
  sizeBytes: number
  annotations: Annotations
  /** Null when the repository does not have it, or the store has not. */
  key: string | null
}

/** More layers than this are not looked at. */
export const MAX_BLOBS = 1_000

const ofArtifact = statement<BlobRow>(
  'artifact blobs',
  `select e.kind, e.digest, e.media_type as "mediaType", coalesce(b.size_bytes, e.size_bytes)::float8 as "sizeBytes",
          coalesce(e.annotations, '{}') as annotations, case when k.blob_id is not null then l.key end as key
     from artifacts.manifest_edges e
     left join artifacts.blobs b on b.digest = e.digest and b.damaged_at is null
     left join artifacts.blob_links k on k.repository_id = e.repository_id and k.blob_id = b.id
     left join artifacts.blob_locations l on l.blob_id = b.id and l.store = $2
    where e.manifest_id = $1 and e.kind in ('config', 'layer', 'foreign') order by e.position limit ${MAX_BLOBS}`,
)

/** The first blobs of an artifact, in the order of its manifest. */
export const blobRows = (sql: Sql, manifestId: number, store: string): Promise<BlobRow[]> =>
  sql.rows(ofArtifact, [manifestId, store])
