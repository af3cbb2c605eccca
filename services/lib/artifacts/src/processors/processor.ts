import type { Readable } from 'node:stream'
import type { Annotations } from '@haven/oci'

export type JsonObject = Readonly<Record<string, unknown>>

/** The names under which Harbor's API asks for additions. */
export const harborAdditions = [
  'build_history',
  'values.yaml',
  'readme.md',
  'dependencies',
  'sbom',
  'license',
  'files',
] as const
/** Those and what only Haven tells. */
const havenAdditions = ['provenance', 'signature', 'statement', 'vex'] as const
export type HarborAddition = (typeof harborAdditions)[number]
export type Addition = HarborAddition | (typeof havenAdditions)[number]

/** Text, and its type: one that no browser runs (threats.md A94). */
export type AdditionContent = { contentType: string; body: string }

export type Layer = { digest: string; mediaType: string; sizeBytes: number; annotations: Annotations }

/** What an artifact says of itself. All of it is what somebody pushed, true or not. */
export type Described = {
  kind: 'image' | 'index'
  /** Harbor's word: see artifact-type.ts. */
  type: string
  artifactType: string | null
  configMediaType: string | null
  annotations: Annotations
  /** The first of them. */
  layers: readonly Pick<Layer, 'mediaType' | 'annotations'>[]
  /** Null for one that is no JSON object, is too large to be read, or was not read. */
  config: JsonObject | null
}

/** The bytes that belong to an artifact. Readers bound what they take of them (threats.md A95). */
export type Content = {
  layers: readonly Layer[]
  /** Null for one that is no JSON object, or is too large to be one. */
  config(): Promise<JsonObject | null>
  /** Null when the store does not have it. */
  open(layer: Layer): Promise<Readable | null>
}

/** What is known of one kind of artifact. */
export type Processor = {
  /** Haven's name for it, in its own API. */
  format: string
  icon: string
  recognises(artifact: Described): boolean
  /** What the API tells of the artifact. @param skipped names of the config that whoever pushed it wants to hide. */
  attributes(artifact: Described, skipped: ReadonlySet<string>): JsonObject
  /** Null from one of these: there is none in this artifact. */
  additions: Partial<Record<Addition, (content: Content) => Promise<AdditionContent | null>>>
}

export const isObject = (value: unknown): value is JsonObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

export const textOf = (value: unknown): string => (typeof value === 'string' ? value : '')

/** Everything in the config, but for what is to be hidden. */
export const wholeConfig: Processor['attributes'] = ({ config }, skipped) =>
  Object.fromEntries(Object.entries(config ?? {}).filter(([name]) => !skipped.has(name)))

/** Whether the artifact is of one of these types, by whichever of its three names tools write. */
export function isOf({ artifactType, configMediaType, layers }: Described, types: ReadonlySet<string>): boolean {
  const named = [artifactType, configMediaType, ...layers.map(({ mediaType }) => mediaType)]
  return named.some((type) => type !== null && types.has(type))
}

/** What layers are annotated with under this name, each value once. */
export const annotatedWith = ({ layers }: Pick<Described, 'layers'>, name: string): string[] => [
  ...new Set(layers.flatMap(({ annotations }) => (Object.hasOwn(annotations, name) ? [annotations[name]!] : []))),
]

export const json = (value: unknown): AdditionContent => ({
  contentType: 'application/json; charset=utf-8',
  body: JSON.stringify(value),
})
