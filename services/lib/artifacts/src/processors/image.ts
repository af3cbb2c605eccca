import { mediaTypes } from '@haven/oci'
import {
  isObject,
  json,
  textOf,
  wholeConfig,
  type Content,
  type Described,
  type JsonObject,
  type Processor,
} from './processor.ts'

/** OCI Image 1.1, "Image Configuration": how a container is run. Anything else in there is not told. */
const runFields = [
  'User',
  'ExposedPorts',
  'Env',
  'Entrypoint',
  'Cmd',
  'Volumes',
  'WorkingDir',
  'Labels',
  'StopSignal',
  'ArgsEscaped',
]
const configTypes = new Set<string>([mediaTypes.ociConfig, mediaTypes.dockerConfig])

/** A container image of Docker or OCI. Its attributes are always these five, empty where the config does not say them (as in Harbor). */
export const image: Processor = {
  format: 'image',
  icon: 'image',
  recognises: hasImageConfig,
  attributes: imageAttributes,
  additions: { build_history: buildHistory },
}

export function hasImageConfig({ kind, configMediaType }: Described): boolean {
  return kind === 'image' && configMediaType !== null && configTypes.has(configMediaType)
}

export function imageAttributes({ config }: Described): JsonObject {
  if (config === null) return {}
  return {
    architecture: textOf(config.architecture),
    author: authorOf(config),
    config: runOf(config.config),
    created: typeof config.created === 'string' ? config.created : null,
    os: textOf(config.os),
  }
}

/** Of what tools push as if it were an image, Harbor tells what it tells of images. */
export const usualAttributes: Processor['attributes'] = (artifact, skipped) =>
  hasImageConfig(artifact) ? imageAttributes(artifact) : wholeConfig(artifact, skipped)

export async function buildHistory(content: Content) {
  const history = (await content.config())?.history
  return json(Array.isArray(history) ? history : null)
}

export const labelsOf = (config: JsonObject | null): JsonObject =>
  config && isObject(config.config) && isObject(config.config.Labels) ? config.config.Labels : {}

function runOf(config: unknown): JsonObject {
  if (!isObject(config)) return {}
  return Object.fromEntries(runFields.flatMap((name) => (isEmpty(config[name]) ? [] : [[name, config[name]]])))
}

const isEmpty = (value: unknown): boolean =>
  value === undefined ||
  value === null ||
  value === '' ||
  value === false ||
  (Array.isArray(value) && value.length === 0)

function authorOf(config: JsonObject): string {
  const labels = labelsOf(config)
  return textOf(config.author) || textOf(labels['org.opencontainers.image.authors']) || textOf(labels.maintainer)
}
