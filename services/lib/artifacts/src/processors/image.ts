import { isObject, json, textOf, type Content, type JsonObject, type Processor } from './processor.ts'

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

/** A container image of Docker or OCI. Its attributes are always these five, empty where the config does not say them (as in Harbor). */
export const image: Processor = {
  title: 'IMAGE(manifest version 2)',
  icon: 'image',
  attributes: (config) => ({
    architecture: textOf(config.architecture),
    author: authorOf(config),
    config: runOf(config.config),
    created: typeof config.created === 'string' ? config.created : null,
    os: textOf(config.os),
  }),
  additions: { build_history: buildHistory },
}

export async function buildHistory(content: Content) {
  const history = (await content.config())?.history
  return json(Array.isArray(history) ? history : null)
}

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
  const labels = isObject(config.config) && isObject(config.config.Labels) ? config.config.Labels : {}
  return textOf(config.author) || textOf(labels['org.opencontainers.image.authors']) || textOf(labels.maintainer)
}
