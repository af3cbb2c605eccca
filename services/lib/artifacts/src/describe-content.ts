import type { Platform } from '@haven/oci'
import type { ArtifactDeps } from './deps.ts'
import { attributesOf } from './learn-facts.ts'
import { additionsOf, formatNameOf } from './read-addition.ts'
import type { Addition, JsonObject } from './processors/processor.ts'
import { blobRows, MAX_BLOBS } from './store/artifact-blobs.ts'
import type { ArtifactRow } from './store/artifact-columns.ts'

export type ArtifactContent = {
  format: string
  attributes: JsonObject
  additions: Addition[]
  /** Of an index: what can be run. */
  platforms: { digest: string; platform: Platform }[]
  /** Of an index: what only tells of its platforms. */
  evidence: { digest: string; about: string | null }[]
  files: {
    digest: string
    mediaType: string
    sizeBytes: number
    /** The name that whoever pushed it gave it: to be shown, and no path. */
    title: string | null
    /** Whether the repository has it. */
    present: boolean
  }[]
  /** More files hang on it than are told. */
  truncated: boolean
}

const TITLE = 'org.opencontainers.image.title'
/** BuildKit, "Attestation storage". */
const REFERENCE_TYPE = 'vnd.docker.reference.type'
const REFERENCE = 'vnd.docker.reference.digest'
/** Names are shown: of one that is longer, its beginning. */
const MAX_TITLE_CHARS = 1024

/** What an artifact is made of, whatever it is: also of one that nobody knows, its files can be told and fetched. One statement. */
export async function describeContent(
  { db, storage }: Pick<ArtifactDeps, 'db' | 'storage'>,
  artifact: ArtifactRow,
): Promise<ArtifactContent> {
  const blobs = await blobRows(db.writes, artifact.id, storage.name)
  const children = artifact.references ?? []
  const isEvidence = ({ annotations, platform }: (typeof children)[number]) =>
    annotations?.[REFERENCE_TYPE] === 'attestation-manifest' || platform?.os === 'unknown'
  return {
    format: formatNameOf(artifact),
    attributes: attributesOf(artifact) ?? {},
    additions: additionsOf(artifact),
    platforms: children
      .filter((child) => !isEvidence(child))
      .flatMap(({ digest, platform }) => (platform ? [{ digest, platform }] : [])),
    evidence: children
      .filter(isEvidence)
      .map(({ digest, annotations }) => ({ digest, about: annotations?.[REFERENCE] ?? null })),
    files: blobs
      .filter(({ kind }) => kind !== 'config')
      .map(({ digest, mediaType, sizeBytes, annotations, key }) => ({
        digest,
        mediaType,
        sizeBytes,
        title: annotations[TITLE]?.slice(0, MAX_TITLE_CHARS) ?? null,
        present: key !== null,
      })),
    truncated: blobs.length === MAX_BLOBS,
  }
}
