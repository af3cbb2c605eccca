import { problems } from '@haven/errors'
import { digestOf, parseDigest, type Digest, type SupportedAlgorithm } from './digest.ts'
import { bareMediaType, isForeignLayerType, isManifestType, mediaTypes } from './media-types.ts'
import { parseStrictJson } from './strict-json.ts'

/** Threats.md §5. The size is also the least that OCI Distribution 1.1 asks a registry to accept. */
export const maxManifestBytes = 4 * 1024 * 1024
export const maxDescriptors = 10_000
export const maxManifestDepth = 32

export type ManifestKind = 'image' | 'index' | 'docker-image' | 'docker-list' | 'unknown-artifact'

export interface Platform {
  readonly architecture: string
  readonly os: string
  readonly variant?: string
  readonly 'os.version'?: string
  readonly 'os.features'?: readonly string[]
}

export type Annotations = Readonly<Record<string, string>>

/** What one piece of content says of another. None of it is proved but what its digest proves. */
export interface Descriptor {
  readonly mediaType: string
  readonly digest: Digest
  readonly sizeBytes: number
  readonly artifactType?: string
  readonly platform?: Platform
  readonly annotations?: Annotations
  /** Never fetched by us (threats.md A87). */
  readonly urls?: readonly string[]
}

/**
 * - `config`, `layer`: a blob of this repository. In an index: an entry whose type is no manifest type.
 * - `foreign`: a layer that may not be copied; it may be absent when it has `urls`.
 * - `child`: a manifest of an index.
 * - `subject`: the manifest that this one is about; it may be absent.
 */
export type EdgeKind = 'config' | 'layer' | 'child' | 'subject' | 'foreign'

export interface Edge extends Descriptor {
  readonly kind: EdgeKind
}

export interface Manifest {
  readonly kind: ManifestKind
  /** Of the bytes, by the algorithm that was asked for. */
  readonly digest: Digest
  readonly mediaType: string
  readonly sizeBytes: number
  /** Falls back to the config's media type for images (OCI Distribution 1.1, "Listing Referrers"). */
  readonly artifactType: string | null
  readonly config: Descriptor | null
  readonly layers: readonly Descriptor[]
  readonly children: readonly Descriptor[]
  readonly subject: Descriptor | null
  readonly annotations: Annotations
  /** Every descriptor once more, in the order of the manifest, with what it is to it. */
  readonly edges: readonly Edge[]
}

const kinds: Record<string, ManifestKind> = {
  [mediaTypes.ociManifest]: 'image',
  [mediaTypes.ociIndex]: 'index',
  [mediaTypes.dockerManifest]: 'docker-image',
  [mediaTypes.dockerList]: 'docker-list',
}
const notManifestTypes = new Set([
  '',
  'application/json',
  'application/octet-stream',
  'application/x-www-form-urlencoded',
])

/**
 * Reads a manifest that somebody pushes or an upstream serves. The bytes stay what is stored; this is what they mean.
 *
 * @param contentType the header's value; it must agree with a `mediaType` in the body (CVE-2021-41190).
 * @param algorithm of the digest: that of the reference it is pushed by.
 * @throws problems.manifestInvalid with the reason and the path of the first fault, problems.payloadTooLarge above `maxManifestBytes`.
 */
export function parseManifest(
  contentType: string | undefined,
  bytes: Uint8Array,
  algorithm: SupportedAlgorithm = 'sha256',
): Manifest {
  if (bytes.length > maxManifestBytes) throw problems.payloadTooLarge({ limitBytes: maxManifestBytes })
  const mediaType = readContentType(contentType)
  const body = readObject(bytes)

  if (body.schemaVersion === 1 || mediaType.startsWith('application/vnd.docker.distribution.manifest.v1+')) {
    throw invalid('schema 1 is not supported any more; push the image again with a client that writes schema 2 or OCI')
  }
  const kind = Object.hasOwn(kinds, mediaType) ? kinds[mediaType]! : 'unknown-artifact'
  checkKeys(body, manifestKeys, '')
  checkMediaType(body.mediaType, mediaType, kind)
  if (kind !== 'unknown-artifact' && body.schemaVersion !== 2) throw invalid('schemaVersion must be 2', 'schemaVersion')
  checkShape(body, kind)

  const read = descriptorReader()
  const config = present(body.config) ? read(body.config, 'config') : null
  if ((kind === 'image' || kind === 'docker-image') && config === null) throw invalid('config is missing', 'config')
  const layers = readList(body.layers, 'layers', read)
  const blobs = kind === 'unknown-artifact' ? readList(body.blobs, 'blobs', read) : []
  const children = readList(body.manifests, 'manifests', read)
  const subject = present(body.subject) ? read(body.subject, 'subject') : null
  const annotations = readAnnotations(body.annotations, 'annotations') ?? {}
  const ownType = readText(body.artifactType, 'artifactType')

  return {
    kind,
    digest: digestOf(bytes, algorithm),
    mediaType,
    sizeBytes: bytes.length,
    artifactType: ownType ?? config?.mediaType ?? null,
    config,
    layers: [...layers, ...blobs],
    children,
    subject,
    annotations,
    edges: [
      ...(config ? [{ ...config, kind: 'config' as const }] : []),
      ...[...layers, ...blobs].map((layer) => ({
        ...layer,
        kind: isForeignLayerType(layer.mediaType) ? ('foreign' as const) : ('layer' as const),
      })),
      ...children.map((child) => ({ ...child, kind: kindOfEntry(child) })),
      ...(subject ? [{ ...subject, kind: 'subject' as const }] : []),
    ],
  }
}

/**
 * BuildKit before 0.21 wrote its cache as an index of layers whose last entry is the cache's config, so an entry of an index
 * is a manifest only when its type says so.
 */
function kindOfEntry({ mediaType }: Descriptor): EdgeKind {
  if (isManifestType(mediaType)) return 'child'
  if (mediaType === mediaTypes.buildkitCacheConfig) return 'config'
  return isForeignLayerType(mediaType) ? 'foreign' : 'layer'
}

/**
 * The blobs without which the manifest cannot be pulled, each once. Children are left out: whether an index may come before
 * its children is a rule of the registry.
 */
export function requiredBlobs({ edges }: Manifest): Digest[] {
  const required = edges.filter(
    ({ kind, urls }) => kind === 'config' || kind === 'layer' || (kind === 'foreign' && !urls?.length),
  )
  return [...new Set(required.map(({ digest }) => digest))]
}

// Parts of the body. `where` is how the client finds the place: `layers[3].digest`.

type Json = Record<string, unknown>

/** `path` of what is wrong, where that is one place: `layers[3].digest`. */
const invalid = (reason: string, path?: string) => problems.manifestInvalid({ reason, ...(path && { path }) })
const wrongAt = (path: string, what: string) => invalid(`${path} ${what}`, path)
const present = (value: unknown) => value !== undefined && value !== null
const isObject = (value: unknown): value is Json => typeof value === 'object' && value !== null && !Array.isArray(value)

function readContentType(header: string | undefined): string {
  const mediaType = bareMediaType(header ?? '')
  if (notManifestTypes.has(mediaType) || mediaType.startsWith('text/') || mediaType.startsWith('multipart/')) {
    throw invalid(`Content-Type must be the media type of the manifest, not ${JSON.stringify(mediaType)}`)
  }
  // RFC 6838, 4.2
  if (!/^[a-z0-9][a-z0-9!#$&^_.+-]{0,126}\/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}$/.test(mediaType)) {
    throw invalid('Content-Type is not a media type')
  }
  return mediaType
}

function readObject(bytes: Uint8Array): Json {
  let text
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch {
    throw invalid('it is not UTF-8')
  }
  const parsed = parseStrictJson(text, { maxDepth: maxManifestDepth })
  if ('wrong' in parsed) throw invalid(parsed.wrong, parsed.path)
  if (!isObject(parsed.value)) throw invalid('it is not a JSON object')
  return parsed.value
}

const manifestKeys = [
  'schemaVersion',
  'mediaType',
  'artifactType',
  'config',
  'layers',
  'blobs',
  'manifests',
  'subject',
  'annotations',
]
const descriptorKeys = ['mediaType', 'digest', 'size', 'urls', 'annotations', 'data', 'platform', 'artifactType']
const properSpelling = new Map([...manifestKeys, ...descriptorKeys].map((key) => [key.toLowerCase(), key]))

// Go reads `Layers` as `layers`, we would not: two readers, two images.
function checkKeys(object: Json, known: readonly string[], where: string) {
  for (const key of Object.keys(object)) {
    const proper = properSpelling.get(key.toLowerCase())
    if (proper !== undefined && proper !== key && known.includes(proper)) {
      throw invalid(
        `${where || 'the manifest'} has the key ${JSON.stringify(key)}, which is spelled ${proper}`,
        where ? `${where}.${key}` : key,
      )
    }
  }
}

function checkMediaType(inBody: unknown, mediaType: string, kind: ManifestKind) {
  const docker = kind === 'docker-image' || kind === 'docker-list'
  if (!present(inBody) && !docker) return
  if (inBody !== mediaType) {
    const found = typeof inBody === 'string' ? inBody : JSON.stringify(inBody ?? '')
    throw invalid(`mediaType in manifest should be '${mediaType}' not '${found.slice(0, 255)}'`, 'mediaType')
  }
}

// A body that is an image to one reader and an index to another is how GHSA-77vh-xpmg-72qh and CVE-2021-41190 work.
function checkShape(body: Json, kind: ManifestKind) {
  const imageKeys = ['config', 'layers'].filter((key) => present(body[key]))
  const isList = present(body.manifests)
  if (isList && imageKeys.length > 0) throw invalid(`it has both manifests and ${imageKeys.join(' and ')}`)
  if (isList && (kind === 'image' || kind === 'docker-image'))
    throw invalid('an image cannot have manifests', 'manifests')
  if (imageKeys.length > 0 && (kind === 'index' || kind === 'docker-list')) {
    throw invalid(`an index cannot have ${imageKeys.join(' and ')}`)
  }
  if (!Object.hasOwn(body, 'manifests') && (kind === 'index' || kind === 'docker-list')) {
    throw invalid('manifests is missing', 'manifests')
  }
}

type ReadDescriptor = (value: unknown, where: string) => Descriptor

function descriptorReader(): ReadDescriptor {
  let count = 0
  return (value, where) => {
    if (++count > maxDescriptors) throw invalid(`it has more than ${maxDescriptors} descriptors`, where)
    if (!isObject(value)) throw wrongAt(where, 'is not a descriptor')
    checkKeys(value, descriptorKeys, where)
    const digest = typeof value.digest === 'string' ? parseDigest(value.digest) : null
    if (digest === null) throw wrongAt(`${where}.digest`, 'is not a digest')
    if (!Number.isSafeInteger(value.size) || (value.size as number) < 0) {
      throw wrongAt(`${where}.size`, 'is not a number of bytes')
    }
    const mediaType = readText(value.mediaType, `${where}.mediaType`)
    if (mediaType === null) throw wrongAt(`${where}.mediaType`, 'is missing')
    if (present(value.data) && typeof value.data !== 'string') throw wrongAt(`${where}.data`, 'is not a text')
    const artifactType = readText(value.artifactType, `${where}.artifactType`)
    const platform = readPlatform(value.platform, `${where}.platform`)
    const annotations = readAnnotations(value.annotations, `${where}.annotations`)
    const urls = readTexts(value.urls, `${where}.urls`)
    return {
      mediaType,
      digest,
      sizeBytes: value.size as number,
      ...(artifactType !== null && { artifactType }),
      ...(platform !== null && { platform }),
      ...(annotations !== null && { annotations }),
      ...(urls !== null && { urls }),
    }
  }
}

// Go writes an empty list as null.
function readList(value: unknown, where: string, read: ReadDescriptor): Descriptor[] {
  if (!present(value)) return []
  if (!Array.isArray(value)) throw wrongAt(where, 'is not a list')
  return value.map((item, index) => read(item, `${where}[${index}]`))
}

/** A media type or the like: null when absent or empty, as Go writes an unset one. */
function readText(value: unknown, where: string): string | null {
  if (!present(value) || value === '') return null
  // Anything else could not be sent in a header.
  if (typeof value !== 'string' || value.length > 255 || /[^\u0020-\u007e]/.test(value)) {
    throw wrongAt(where, 'is not a text of at most 255 printable characters')
  }
  return value
}

function readTexts(value: unknown, where: string): string[] | null {
  if (!present(value)) return null
  if (!Array.isArray(value) || !value.every((item) => typeof item === 'string' && item.isWellFormed())) {
    throw wrongAt(where, 'is not a list of texts')
  }
  return value as string[]
}

function readAnnotations(value: unknown, where: string): Annotations | null {
  if (!present(value)) return null
  if (!isObject(value)) throw wrongAt(where, 'is not an object')
  for (const [key, text] of Object.entries(value)) {
    // A lone surrogate is no text to Postgres.
    if (typeof text !== 'string' || !text.isWellFormed() || !key.isWellFormed()) {
      throw wrongAt(`${where}[${JSON.stringify(key.slice(0, 100))}]`, 'is not a text')
    }
  }
  return value as Annotations
}

function readPlatform(value: unknown, where: string): Platform | null {
  if (!present(value)) return null
  if (!isObject(value)) throw wrongAt(where, 'is not an object')
  const variant = readText(value.variant, `${where}.variant`)
  const version = readText(value['os.version'], `${where}.os.version`)
  const features = readTexts(value['os.features'], `${where}.os.features`)
  return {
    architecture: readText(value.architecture, `${where}.architecture`) ?? '',
    os: readText(value.os, `${where}.os`) ?? '',
    ...(variant !== null && { variant }),
    ...(version !== null && { 'os.version': version }),
    ...(features !== null && { 'os.features': features }),
  }
}
