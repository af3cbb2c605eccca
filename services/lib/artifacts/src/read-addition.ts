import { problems } from '@haven/errors'
import type { ArtifactDeps } from './deps.ts'
import { described, formatOf, readConfig } from './learn-facts.ts'
import { harborTitleOf, processorNamed, processorOf } from './processors/index.ts'
import { image } from './processors/image.ts'
import {
  harborAdditions,
  type Addition,
  type AdditionContent,
  type Content,
  type Processor,
} from './processors/processor.ts'
import { blobRows } from './store/artifact-blobs.ts'
import type { ArtifactRow } from './store/artifact-columns.ts'

/** As an artifact was recognised when it was looked into, or by its types until then. */
const knownProcessor = (artifact: ArtifactRow): Processor =>
  processorNamed(formatOf(artifact) ?? '') ?? processorOf(described(artifact))

/** What tools push as an image although it is none is an image to Harbor. */
const isImageToHarbor = ({ kind, type }: ArtifactRow) => kind === 'image' && type === 'IMAGE'

const readersOf = (artifact: ArtifactRow): Processor['additions'] => ({
  ...(isImageToHarbor(artifact) && image.additions),
  ...knownProcessor(artifact).additions,
})

/** The additions of an artifact, in Haven's API. */
export const additionsOf = (artifact: ArtifactRow): Addition[] => Object.keys(readersOf(artifact)) as Addition[]

/** Those of them that Harbor's API links to. */
export const harborAdditionsOf = (artifact: ArtifactRow): string[] =>
  additionsOf(artifact).filter((name) => (harborAdditions as readonly string[]).includes(name))

/** The name of the icon that stands for an artifact's type. */
export const iconNameOf = (artifact: ArtifactRow): string =>
  isImageToHarbor(artifact) ? image.icon : knownProcessor(artifact).icon

/** What an artifact is, in Haven's words. */
export const formatNameOf = (artifact: ArtifactRow): string => knownProcessor(artifact).format

/**
 * What an artifact carries beside its layers: a chart's values, an image's history.
 * @throws badRequest for what its type does not have, notFound for what is not in this one.
 */
export async function readAddition(
  deps: Pick<ArtifactDeps, 'db' | 'storage'>,
  artifact: ArtifactRow,
  addition: Addition,
): Promise<AdditionContent> {
  const read = readersOf(artifact)[addition]
  if (!read) throw problems.badRequest({ message: refusalOf(artifact, addition) })
  const found = await read(await contentOf(deps, artifact))
  if (!found) throw problems.notFound({ message: `the artifact has no ${addition}` })
  return found
}

function refusalOf({ kind, type }: ArtifactRow, addition: Addition): string {
  if (kind === 'index') return `addition ${addition.toUpperCase()} isn't supported`
  const title = harborTitleOf(type)
  if (title === null) return `the processor for artifact ${type} not found, cannot get the addition`
  return `addition ${addition.toUpperCase()} isn't supported for ${title}`
}

async function contentOf({ db, storage }: Pick<ArtifactDeps, 'db' | 'storage'>, { id }: ArtifactRow): Promise<Content> {
  const rows = await blobRows(db.writes, id, storage.name)
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
