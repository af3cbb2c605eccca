import { problems, type Problem } from '@haven/errors'
import type { Branded } from './brand.ts'
import { parseDigest, type Digest } from './digest.ts'
import { parseRepositoryName, type RepositoryName } from './names.ts'
import { formatReference, parseReference, type Reference } from './reference.ts'

/** Names one upload inside its repository: letters, digits, `-`, `_`, `=`. */
export type UploadId = Branded<'UploadId'>

/** What a path under `/v2` asks for. */
export type RegistryPath =
  | { readonly kind: 'ping' }
  | { readonly kind: 'catalog' }
  | { readonly kind: 'discover'; readonly name: RepositoryName | null }
  | { readonly kind: 'tags'; readonly name: RepositoryName }
  | { readonly kind: 'manifest'; readonly name: RepositoryName; readonly reference: Reference }
  | { readonly kind: 'blob'; readonly name: RepositoryName; readonly digest: Digest }
  | { readonly kind: 'uploads'; readonly name: RepositoryName }
  | { readonly kind: 'upload'; readonly name: RepositoryName; readonly upload: UploadId }
  | { readonly kind: 'referrers'; readonly name: RepositoryName; readonly digest: Digest }

/** A path of a known shape with a part that cannot be what it stands for. `problemOfPath` says what to answer. */
export interface InvalidRegistryPath {
  readonly kind: 'invalid'
  readonly of: RegistryPath['kind']
  readonly wrong: 'name' | 'reference' | 'digest' | 'upload'
  readonly text: string
  /** Null when the name is what is wrong. */
  readonly name: RepositoryName | null
}

/** Null for a text that cannot be the id of an upload. */
export function parseUploadId(text: string): UploadId | null {
  return /^[A-Za-z0-9_=-]{1,128}$/.test(text) ? (text as UploadId) : null
}

/**
 * Reads a canonical path (see `canonicalPath`). Null when it has no shape of the registry API.
 *
 * Matched from the right: a repository may be called `a/manifests/b`, so only the last words can be the API's.
 */
export function parseRegistryPath(path: string): RegistryPath | InvalidRegistryPath | null {
  if (path === '/v2/' || path === '/v2') return { kind: 'ping' }
  if (!path.startsWith('/v2/')) return null
  const rest = path.slice(4)
  if (rest === '_catalog') return { kind: 'catalog' }
  if (rest === '_oci/ext/discover') return { kind: 'discover', name: null }

  const slash = rest.lastIndexOf('/')
  if (slash === -1) return null
  const last = rest.slice(slash + 1)
  const before = rest.slice(0, slash)

  switch (lastWord(before)) {
    case 'manifests':
      return at('manifest', before, 'manifests', (name) => {
        const reference = parseReference(last)
        return reference ? { kind: 'manifest', name, reference } : invalid('manifest', 'reference', last, name)
      })
    case 'blobs':
      if (last === 'uploads') return at('uploads', before, 'blobs', (name) => ({ kind: 'uploads', name }))
      return at('blob', before, 'blobs', (name) => {
        const digest = parseDigest(last)
        return digest ? { kind: 'blob', name, digest } : invalid('blob', 'digest', last, name)
      })
    case 'uploads':
      if (!before.endsWith('/blobs/uploads')) return null
      if (last === '') return at('uploads', before, 'blobs/uploads', (name) => ({ kind: 'uploads', name }))
      return at('upload', before, 'blobs/uploads', (name) => {
        const upload = parseUploadId(last)
        return upload ? { kind: 'upload', name, upload } : invalid('upload', 'upload', last, name)
      })
    case 'referrers':
      return at('referrers', before, 'referrers', (name) => {
        const digest = parseDigest(last)
        return digest ? { kind: 'referrers', name, digest } : invalid('referrers', 'digest', last, name)
      })
    case 'tags':
      return last === 'list' ? at('tags', before, 'tags', (name) => ({ kind: 'tags', name })) : null
    case 'ext':
      if (last !== 'discover' || !before.endsWith('/_oci/ext')) return null
      return at('discover', before, '_oci/ext', (name) => ({ kind: 'discover', name }))
    default:
      return null
  }
}

function lastWord(text: string): string {
  return text.slice(text.lastIndexOf('/') + 1)
}

function at(
  kind: RegistryPath['kind'],
  before: string,
  words: string,
  read: (name: RepositoryName) => RegistryPath | InvalidRegistryPath,
): RegistryPath | InvalidRegistryPath | null {
  const end = before.length - words.length - 1
  if (end <= 0) return null // no name at all
  const text = before.slice(0, end)
  const name = parseRepositoryName(text)
  return name === null ? invalid(kind, 'name', text, null) : read(name)
}

function invalid(
  of: RegistryPath['kind'],
  wrong: InvalidRegistryPath['wrong'],
  text: string,
  name: RepositoryName | null,
): InvalidRegistryPath {
  return { kind: 'invalid', of, wrong, text, name }
}

/** The answer to a path with an impossible part. Only who changes something is told that a reference is malformed: else it is absent. */
export function problemOfPath({ wrong, text, name }: InvalidRegistryPath, method: string): Problem {
  switch (wrong) {
    case 'name':
      return problems.nameInvalid({ name: text })
    case 'digest':
      return problems.digestInvalid({ digest: text, reason: `invalid digest: ${text}` })
    case 'upload':
      return problems.blobUploadUnknown({ upload: text })
    case 'reference':
      if (text.includes(':') && (method === 'PUT' || method === 'DELETE')) {
        return problems.digestInvalid({ digest: text, reason: `invalid digest: ${text}` })
      }
      return method === 'PUT'
        ? problems.tagInvalid({ tag: text })
        : problems.manifestUnknown({ repository: name ?? '', reference: text })
  }
}

/** The path that `parseRegistryPath` reads back as the same value. */
export function formatRegistryPath(path: RegistryPath): string {
  switch (path.kind) {
    case 'ping':
      return '/v2/'
    case 'catalog':
      return '/v2/_catalog'
    case 'discover':
      return path.name === null ? '/v2/_oci/ext/discover' : `/v2/${path.name}/_oci/ext/discover`
    case 'tags':
      return `/v2/${path.name}/tags/list`
    case 'manifest':
      return `/v2/${path.name}/manifests/${formatReference(path.reference)}`
    case 'blob':
      return `/v2/${path.name}/blobs/${path.digest}`
    case 'uploads':
      return `/v2/${path.name}/blobs/uploads/`
    case 'upload':
      return `/v2/${path.name}/blobs/uploads/${path.upload}`
    case 'referrers':
      return `/v2/${path.name}/referrers/${path.digest}`
  }
}
