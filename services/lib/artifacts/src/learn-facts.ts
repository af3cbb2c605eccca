import { statement } from '@haven/db'
import { parseDigest, parseStrictJson, type Annotations, type Digest } from '@haven/oci'
import { ObjectMissing, ObjectTruncated } from '@haven/storage'
import type { ArtifactDeps } from './deps.ts'
import { readAll } from './processors/bounded.ts'
import { processorOf } from './processors/index.ts'
import { isObject, type Described, type JsonObject } from './processors/processor.ts'
import { isPicture, MAX_ICON_BYTES } from './read-icon.ts'
import type { ArtifactRow } from './store/artifact-columns.ts'

/** Larger ones are no configs that people read. */
const MAX_CONFIG_BYTES = 1024 * 1024
/** Of what is kept and told of one artifact: a page of a hundred has to stay readable. */
const MAX_ATTRIBUTES_BYTES = 64 * 1024
const MAX_DEPTH = 32
/** Layers by which an artifact is recognised. */
const MAX_LAYERS = 100
const MAX_ANNOTATION_CHARS = 1024
const PARALLEL_READS = 8
/** Raised when a processor learns something new: what was learned by another is learned again. */
const VERSION = 2

const SKIP_LIST = 'io.goharbor.artifact.v1alpha1.skip-list'
const ICON = 'io.goharbor.artifact.v1alpha1.icon'
/** What processors read of a layer's annotations. */
const LAYER_ANNOTATIONS = ['org.opencontainers.image.title', 'in-toto.io/predicate-type', 'predicateType']

type BlobRow = { key: string | null; sizeBytes: number }
type InsideRow = {
  id: number
  config: (BlobRow & { skipList: string | null }) | null
  layers: { mediaType: string; annotations: Annotations }[] | null
  icon: (BlobRow & { digest: string }) | null
}

const located = (digest: string) => `
  (select jsonb_build_object('key', l.key, 'sizeBytes', b.size_bytes)
     from artifacts.blobs b
     join artifacts.blob_links k on k.repository_id = m.repository_id and k.blob_id = b.id
     join artifacts.blob_locations l on l.blob_id = b.id and l.store = $2
    where b.digest = ${digest} and b.damaged_at is null limit 1)`

// The config of a CNAB is that of one of its children.
const locate = statement<InsideRow>(
  'facts locate',
  `select m.id::float8 as id,
          (select jsonb_build_object('key', null, 'sizeBytes', 0, 'skipList', left(c.annotations ->> '${SKIP_LIST}', ${MAX_ANNOTATION_CHARS}))
                  || coalesce(${located('c.digest')}, '{}')
             from (select e.digest, e.annotations, 0 as rank from artifacts.manifest_edges e where e.manifest_id = m.id and e.kind = 'config'
                   union all
                   select e.digest, e.annotations, 1
                     from artifacts.manifest_edges x
                     join artifacts.manifests n on n.repository_id = x.repository_id and n.digest = x.digest and n.deleted_at is null
                     join artifacts.manifest_edges e on e.manifest_id = n.id and e.kind = 'config'
                    where m.type = 'CNAB' and x.manifest_id = m.id and x.kind = 'child'
                      and x.annotations ->> 'io.cnab.manifest.type' = 'config'
                   order by rank limit 1) c) as config,
          (select jsonb_agg(jsonb_build_object('mediaType', y.media_type, 'annotations', jsonb_strip_nulls(jsonb_build_object(
                    ${LAYER_ANNOTATIONS.map((name) => `'${name}', left(y.annotations ->> '${name}', ${MAX_ANNOTATION_CHARS})`).join(', ')})))
                    order by y.position)
             from (select e.* from artifacts.manifest_edges e
                    where e.manifest_id = m.id and e.kind in ('layer', 'foreign') order by e.position limit ${MAX_LAYERS}) y) as layers,
          (select jsonb_build_object('digest', i.digest) || coalesce(${located('i.digest')}, '{}')
             from (select e.digest from artifacts.manifest_edges e
                    where e.manifest_id = m.id and e.kind = 'layer' and e.annotations ? '${ICON}'
                      and e.media_type in ('image/png', 'image/jpeg', 'image/gif')
                    order by e.position limit 1) i) as icon
     from artifacts.manifests m
    where m.id = any($1::bigint[])`,
)
const store = statement(
  'facts store',
  `update artifacts.manifests m set facts = f.facts
     from jsonb_to_recordset($1::jsonb) as f (id bigint, facts jsonb) where m.id = f.id`,
)

type Known = Pick<ArtifactRow, 'id' | 'kind' | 'type' | 'artifactType' | 'configMediaType' | 'annotations' | 'facts'>

/** What is known of an artifact from inside it: the API's extra attributes. Null where there is none. */
export const attributesOf = ({ facts }: Pick<ArtifactRow, 'facts'>): JsonObject | null =>
  facts.version === VERSION && isObject(facts.attributes) ? facts.attributes : null

/** The icon that an artifact brings along. Null when it has none. */
export const ownIconOf = ({ facts }: Pick<ArtifactRow, 'facts'>): Digest | null =>
  facts.version === VERSION && typeof facts.icon === 'string' ? parseDigest(facts.icon) : null

/**
 * What an artifact says of itself, without its config. Its layers are known once the artifact was looked into; then the format that they
 * gave is.
 */
export const described = (artifact: Known, layers: Described['layers'] = []): Described => ({
  ...artifact,
  layers,
  config: null,
})

/** The name of what an artifact was recognised as, if it was looked into. */
export const formatOf = ({ facts }: Pick<ArtifactRow, 'facts'>): string | null =>
  facts.version === VERSION && typeof facts.format === 'string' ? facts.format : null

/**
 * Reads what artifacts are inside of which that was not done yet, and keeps what it says. Done by the first who looks and not by the push:
 * a push stays as fast as it is and cannot fail for it, and of most that a pipeline pushes nobody ever asks.
 *
 * Two statements, if anything is to be learned. A config that cannot be read now is left for the next who looks, and told to `onFailure`.
 */
export async function learnFacts(
  { db, storage }: Pick<ArtifactDeps, 'db' | 'storage'>,
  artifacts: readonly Known[],
  onFailure: (error: unknown) => void,
): Promise<void> {
  const unknown = new Map(
    artifacts.filter(({ facts }) => facts.version !== VERSION).map((artifact) => [artifact.id, artifact]),
  )
  if (unknown.size === 0) return
  const rows = await db.writes.rows(locate, [[...unknown.keys()], storage.name])
  const learned: { id: number; facts: JsonObject }[] = []
  const learnNext = async () => {
    for (let row = rows.pop(); row !== undefined; row = rows.pop()) {
      const artifact = unknown.get(row.id)!
      try {
        const facts = await factsOf({ storage }, artifact, row)
        if (facts === null) continue
        Object.assign(artifact, { facts })
        learned.push({ id: row.id, facts })
      } catch (error) {
        onFailure(error)
      }
    }
  }
  await Promise.all(Array.from({ length: PARALLEL_READS }, learnNext))
  if (learned.length > 0) await db.writes.rows(store, [storable(learned)])
}

/** Null while the config is not there. @throws when the store fails. */
async function factsOf(
  deps: Pick<ArtifactDeps, 'storage'>,
  artifact: Known,
  { config, layers, icon }: InsideRow,
): Promise<JsonObject | null> {
  if (config && config.key === null) return null
  const inside: Described = {
    ...described(artifact, layers ?? []),
    config: config?.key ? await readConfig(deps, { key: config.key, sizeBytes: config.sizeBytes }) : null,
  }
  const skipped = new Set((config?.skipList ?? '').split(',').map((name) => name.trim()))
  const processor = processorOf(inside)
  const attributes = bounded(processor.attributes(inside, skipped))
  // Of types that Harbor knows, it shows its own icon.
  const isShown = processor.icon === 'unknown' && icon?.key && icon.sizeBytes <= MAX_ICON_BYTES
  const picture = isShown ? await readObject(deps, icon.key!, MAX_ICON_BYTES) : null
  return {
    version: VERSION,
    format: processor.format,
    ...(Object.keys(attributes).length > 0 && { attributes }),
    ...(picture && isPicture(picture) && { icon: icon!.digest }),
  }
}

/** A config as the object that it should be. Null when it is none, or cannot be one that people read. @throws when the store fails. */
export async function readConfig(
  deps: Pick<ArtifactDeps, 'storage'>,
  { key, sizeBytes }: { key: string; sizeBytes: number },
): Promise<JsonObject | null> {
  if (sizeBytes > MAX_CONFIG_BYTES) return null
  const bytes = await readObject(deps, key, MAX_CONFIG_BYTES)
  const parsed = bytes && parseStrictJson(bytes.toString('utf8'), { maxDepth: MAX_DEPTH })
  return parsed && 'value' in parsed && isObject(parsed.value) ? parsed.value : null
}

const readObject = ({ storage }: Pick<ArtifactDeps, 'storage'>, key: string, maxBytes: number) =>
  readAll(storage.read(key), maxBytes).catch((error: unknown) => {
    if (error instanceof ObjectMissing || error instanceof ObjectTruncated) return null
    throw error
  })

/** What is longest goes first until the rest fits. */
function bounded(attributes: JsonObject): JsonObject {
  const sizes = Object.entries(attributes)
    .map(([name, value]) => ({ name, value, bytes: Buffer.byteLength(JSON.stringify({ [name]: value })) }))
    .sort((a, b) => a.bytes - b.bytes)
  let left = MAX_ATTRIBUTES_BYTES
  const kept = sizes.filter(({ bytes }) => (left -= bytes) >= 0)
  return Object.fromEntries(kept.map(({ name, value }) => [name, value]))
}

// Half of a surrogate pair is text in JavaScript and in JSON, and none in Postgres. What is kept is only shown.
const storable = (value: unknown): string =>
  JSON.stringify(value).replaceAll(/(?<!\\)((?:\\\\)*)\\ud[89a-f][0-9a-f]{2}/g, '$1\\ufffd')
