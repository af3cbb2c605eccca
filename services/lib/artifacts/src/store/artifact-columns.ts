import { Prisma } from '@haven/db'
import type { Annotations, Platform } from '@haven/oci'
import { lastPull } from './artifact-conditions.ts'

/** What of an artifact is wanted beside its own row. */
export type ArtifactParts = {
  tags?: boolean
  labels?: boolean
  accessories?: boolean
  /** Accessories of the indexes that name it. */
  inherited?: boolean
}

export type ArtifactTag = { id: number; name: string; pushedAt: string; pulledAt: string | null }
export type ArtifactReference = {
  digest: string
  /** Null for a manifest that the repository does not have. */
  childId: number | null
  platform: Platform | null
  annotations: Annotations | null
  urls: string[]
}
export type Accessory = {
  id: number
  digest: string
  /** Harbor's word: signature.cosign, subject.accessory, … */
  type: string
  sizeBytes: number
  pushedAt: string
  subjectDigest: string
  /** Null while the repository does not have the subject. */
  subjectId: number | null
}

/** Times of what hangs on it are as Postgres writes them in JSON. */
export type ArtifactRow = {
  id: number
  repositoryId: number
  path: string
  digest: string
  mediaType: string
  configMediaType: string | null
  artifactType: string | null
  kind: 'image' | 'index'
  type: string
  sizeBytes: number
  subjectDigest: string | null
  annotations: Annotations
  facts: Record<string, unknown>
  pushedBy: string | null
  pushedAt: Date
  pulledAt: Date | null
  references: ArtifactReference[] | null
  /** Others follow: a list tells the first `MAX_LISTED_REFERENCES` of each index. */
  moreReferences: boolean
  tags: ArtifactTag[] | null
  labelIds: number[] | null
  accessories: Accessory[] | null
  inherited: Accessory[] | null
}

// Harbor knows a signature that Cosign made by its layer, since the oldest ones have an image's config.
export const accessoryType = (m: string) =>
  Prisma.raw(`case
    when ${m}.artifact_type = 'application/vnd.cncf.notary.signature' then 'signature.notation'
    when ${m}.config_media_type = 'application/vnd.goharbor.harbor.sbom.v1' then 'sbom.harbor'
    when ${m}.artifact_type in ('application/vnd.dev.cosign.artifact.sig.v1+json', 'application/vnd.dev.sigstore.bundle.v0.3+json')
      or ${m}.config_media_type = 'application/vnd.dev.cosign.artifact.sig.v1+json'
      or exists (select from artifacts.manifest_edges l
                  where l.manifest_id = ${m}.id and l.kind = 'layer' and l.media_type = 'application/vnd.dev.cosign.simplesigning.v1+json')
      then 'signature.cosign'
    else 'subject.accessory' end`)

const none = Prisma.sql`null::jsonb`

const tags = Prisma.sql`(
  select jsonb_agg(jsonb_build_object('id', t.id, 'name', t.name, 'pushedAt', t.pushed_at, 'pulledAt', t.pulled_at)
                   order by t.pushed_at desc, t.id desc)
    from artifacts.tags t where t.manifest_id = m.id)`

const labelIds = Prisma.sql`(
  select jsonb_agg(l.label_id order by l.created_at, l.label_id) from artifacts.artifact_labels l where l.manifest_id = m.id)`

const accessory = Prisma.sql`jsonb_build_object(
  'id', a.id, 'digest', a.digest, 'type', ${accessoryType('a')}, 'sizeBytes', a.total_bytes, 'pushedAt', a.pushed_at,
  'subjectDigest', a.subject_digest, 'subjectId', s.id)`

const accessories = Prisma.sql`(
  select jsonb_agg(${accessory} order by a.id)
    from artifacts.manifests a join artifacts.manifests s on s.id = m.id
   where a.repository_id = m.repository_id and a.subject_digest = m.digest and a.deleted_at is null)`

const inherited = Prisma.sql`(
  select jsonb_agg(${accessory} order by a.id)
    from artifacts.manifest_edges e
    join artifacts.manifests s on s.id = e.manifest_id and s.deleted_at is null
    join artifacts.manifests a on a.repository_id = s.repository_id and a.subject_digest = s.digest and a.deleted_at is null
   where e.repository_id = m.repository_id and e.digest = m.digest and e.kind = 'child')`

/** Of one index in a list: a page of a hundred that hold ten thousand each would be hundreds of megabytes. */
export const MAX_LISTED_REFERENCES = 200

const references = (limit: Prisma.Sql) => Prisma.sql`(
  select jsonb_agg(jsonb_build_object('digest', e.digest, 'childId', c.id, 'platform', e.platform, 'annotations', e.annotations,
                                      'urls', e.urls) order by e.position)
    from (select e.* from artifacts.manifest_edges e where e.manifest_id = m.id and e.kind = 'child' order by e.position ${limit}) e
    left join artifacts.manifests c on c.repository_id = e.repository_id and c.digest = e.digest and c.deleted_at is null
   where m.kind = 'index')`
const someReferences = Prisma.sql`
  ${references(Prisma.sql`limit ${MAX_LISTED_REFERENCES}`)} as "references",
  m.kind = 'index' and exists (
    select from artifacts.manifest_edges e where e.manifest_id = m.id and e.kind = 'child' offset ${MAX_LISTED_REFERENCES}) as "moreReferences"`
export const allReferences = Prisma.sql`${references(Prisma.empty)} as "references", false as "moreReferences"`

export const columns = (parts: ArtifactParts, children = someReferences) => Prisma.sql`
  m.id::float8 as id, m.repository_id as "repositoryId", r.path, m.digest, m.media_type as "mediaType",
  m.config_media_type as "configMediaType", m.artifact_type as "artifactType", m.kind, m.type, m.total_bytes::float8 as "sizeBytes",
  m.subject_digest as "subjectDigest", m.annotations, m.facts, m.pushed_by as "pushedBy", m.pushed_at as "pushedAt", ${lastPull} as "pulledAt",
  ${children},
  ${parts.tags ? tags : none} as tags,
  ${parts.labels ? labelIds : none} as "labelIds",
  ${parts.accessories ? accessories : none} as accessories,
  ${parts.inherited ? inherited : none} as inherited`
