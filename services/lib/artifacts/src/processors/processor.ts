import type { Readable } from 'node:stream'

export type JsonObject = Readonly<Record<string, unknown>>

export const additions = [
  'build_history',
  'values.yaml',
  'readme.md',
  'dependencies',
  'sbom',
  'license',
  'files',
] as const
export type Addition = (typeof additions)[number]

/** Text, and its type. */
export type AdditionContent = { contentType: string; body: string }

export type Layer = { digest: string; mediaType: string; sizeBytes: number }

/** The bytes that belong to an artifact: whatever somebody pushed. Readers bound what they take of them (threats.md A95). */
export type Content = {
  layers: readonly Layer[]
  /** Null for one that is no JSON object, or is too large to be one. */
  config(): Promise<JsonObject | null>
  /** Null when the store does not have it. */
  open(layer: Layer): Promise<Readable | null>
}

/** What is known of one kind of artifact. */
export type Processor = {
  /** How refusals name it; null where nothing can be asked for. */
  title: string | null
  icon: string
  /** What the API tells of the artifact, from its config. @param skipped names that whoever pushed it wants to hide. */
  attributes(config: JsonObject, skipped: ReadonlySet<string>): JsonObject
  /** Null from one of these: there is none in this artifact. */
  additions: Partial<Record<Addition, (content: Content) => Promise<AdditionContent | null>>>
}

export const isObject = (value: unknown): value is JsonObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

export const textOf = (value: unknown): string => (typeof value === 'string' ? value : '')

/** Everything in the config, but for what is to be hidden. */
export const wholeConfig: Processor['attributes'] = (config, skipped) =>
  Object.fromEntries(Object.entries(config).filter(([name]) => !skipped.has(name)))

export const json = (value: unknown): AdditionContent => ({
  contentType: 'application/json; charset=utf-8',
  body: JSON.stringify(value),
})
