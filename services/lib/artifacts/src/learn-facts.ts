import { statement } from '@haven/db'
import { parseStrictJson, type Annotations } from '@haven/oci'
import { ObjectMissing, ObjectTruncated } from '@haven/storage'
import type { ArtifactDeps } from './deps.ts'
import { readAll } from './processors/bounded.ts'
import { processorOf } from './processors/index.ts'
import { isObject, type JsonObject } from './processors/processor.ts'
import type { ArtifactRow } from './store/artifact-rows.ts'

/** Larger ones are no configs that people read. */
const MAX_CONFIG_BYTES = 1024 * 1024
/** Of what is kept and told of one artifact: a page of a hundred has to stay readable. */
const MAX_ATTRIBUTES_BYTES = 64 * 1024
const MAX_DEPTH = 32
const PARALLEL_READS = 8
/** Raised when a processor learns something new: what was learned by another is learned again. */
const VERSION = 1

const SKIP_LIST = 'io.goharbor.artifact.v1alpha1.skip-list'

type ConfigRow = { id: number; key: string; sizeBytes: number; annotations: Annotations | null }

const locate = statement<ConfigRow>(
  'facts locate configs',
  `select m.id::float8 as id, l.key, b.size_bytes::float8 as "sizeBytes", e.annotations
     from artifacts.manifests m
     join artifacts.manifest_edges e on e.manifest_id = m.id and e.kind = 'config'
     join artifacts.blobs b on b.digest = e.digest and b.damaged_at is null
     join artifacts.blob_links k on k.repository_id = m.repository_id and k.blob_id = b.id
     join artifacts.blob_locations l on l.blob_id = b.id and l.store = $2
    where m.id = any($1::bigint[])`,
)
const store = statement(
  'facts store',
  `update artifacts.manifests m set facts = f.facts
     from jsonb_to_recordset($1::jsonb) as f (id bigint, facts jsonb) where m.id = f.id`,
)

type Known = Pick<ArtifactRow, 'id' | 'kind' | 'type' | 'facts'>

/** What is known of an artifact from inside it: the API's extra attributes. Null where there is none. */
export const attributesOf = ({ facts }: Pick<ArtifactRow, 'facts'>): JsonObject | null =>
  facts.version === VERSION && isObject(facts.attributes) ? facts.attributes : null

/**
 * Reads the configs of artifacts of which that was not done yet, and keeps what they say. Done by the first who looks and not by the push:
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
    artifacts
      .filter(({ kind, facts }) => kind === 'image' && facts.version !== VERSION)
      .map((artifact) => [artifact.id, artifact]),
  )
  if (unknown.size === 0) return
  const configs = await db.writes.rows(locate, [[...unknown.keys()], storage.name])
  const learned: { id: number; facts: JsonObject }[] = []
  const learnNext = async () => {
    for (let row = configs.pop(); row !== undefined; row = configs.pop()) {
      const artifact = unknown.get(row.id)!
      try {
        const config = await readConfig({ storage }, row)
        const skipped = new Set((row.annotations?.[SKIP_LIST] ?? '').split(',').map((name) => name.trim()))
        const attributes = config && bounded(processorOf(artifact).attributes(config, skipped))
        const facts = { version: VERSION, ...(attributes && Object.keys(attributes).length > 0 && { attributes }) }
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

/** A config as the object that it should be. Null when it is none, or cannot be one that people read. @throws when the store fails. */
export async function readConfig(
  { storage }: Pick<ArtifactDeps, 'storage'>,
  { key, sizeBytes }: { key: string; sizeBytes: number },
): Promise<JsonObject | null> {
  if (sizeBytes > MAX_CONFIG_BYTES) return null
  const bytes = await readAll(storage.read(key), MAX_CONFIG_BYTES).catch((error: unknown) => {
    if (error instanceof ObjectMissing || error instanceof ObjectTruncated) return null
    throw error
  })
  const parsed = bytes && parseStrictJson(bytes.toString('utf8'), { maxDepth: MAX_DEPTH })
  return parsed && 'value' in parsed && isObject(parsed.value) ? parsed.value : null
}

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
