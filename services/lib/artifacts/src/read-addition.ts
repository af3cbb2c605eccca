import { statement } from '@haven/db'
import { problems } from '@haven/errors'
import type { ArtifactDeps } from './deps.ts'
import { readConfig } from './learn-facts.ts'
import { processorOf } from './processors/index.ts'
import type { Addition, AdditionContent, Content, Layer } from './processors/processor.ts'
import type { ArtifactRow } from './store/artifact-rows.ts'

type BlobRow = Layer & { kind: string; key: string | null }

const blobs = statement<BlobRow>(
  'additions blobs',
  `select e.kind, e.digest, e.media_type as "mediaType", b.size_bytes::float8 as "sizeBytes", l.key
     from artifacts.manifests m
     join artifacts.manifest_edges e on e.manifest_id = m.id and e.kind in ('config', 'layer')
     join artifacts.blobs b on b.digest = e.digest and b.damaged_at is null
     join artifacts.blob_links k on k.repository_id = m.repository_id and k.blob_id = b.id
     left join artifacts.blob_locations l on l.blob_id = b.id and l.store = $2
    where m.id = $1 order by e.position limit 1000`,
)

/** The additions of an artifact that the API links to. */
export const additionsOf = (artifact: Pick<ArtifactRow, 'kind' | 'type'>): string[] =>
  Object.keys(processorOf(artifact).additions)

/** The name of the icon that stands for an artifact's type. */
export const iconNameOf = (artifact: Pick<ArtifactRow, 'kind' | 'type'>): string => processorOf(artifact).icon

/**
 * What an artifact carries beside its layers: a chart's values, an image's history.
 * @throws badRequest for what its type does not have, notFound for what is not in this one.
 */
export async function readAddition(
  deps: Pick<ArtifactDeps, 'db' | 'storage'>,
  artifact: ArtifactRow,
  addition: Addition,
): Promise<AdditionContent> {
  const { title, additions } = processorOf(artifact)
  const read = additions[addition]
  if (!read) throw problems.badRequest({ message: refusalOf(artifact, addition, title) })
  const found = await read(await contentOf(deps, artifact))
  if (!found) throw problems.notFound({ message: `the artifact has no ${addition}` })
  return found
}

function refusalOf({ kind, type }: ArtifactRow, addition: Addition, title: string | null): string {
  if (kind === 'index') return `addition ${addition.toUpperCase()} isn't supported`
  if (title === null) return `the processor for artifact ${type} not found, cannot get the addition`
  return `addition ${addition.toUpperCase()} isn't supported for ${title}`
}

async function contentOf({ db, storage }: Pick<ArtifactDeps, 'db' | 'storage'>, { id }: ArtifactRow): Promise<Content> {
  const rows = await db.writes.rows(blobs, [id, storage.name])
  const config = rows.find(({ kind }) => kind === 'config')
  return {
    layers: rows.filter(({ kind }) => kind === 'layer'),
    async config() {
      return config?.key ? readConfig({ storage }, { key: config.key, sizeBytes: config.sizeBytes }) : null
    },
    async open(layer) {
      const key = rows.find(({ kind, digest }) => kind === 'layer' && digest === layer.digest)?.key
      if (!key) return null
      return (await storage.stat(key)) && storage.read(key)
    },
  }
}
