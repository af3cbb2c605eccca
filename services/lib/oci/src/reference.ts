import { algorithmOf, encodedOf, parseDigest, type Digest } from './digest.ts'
import { parseRepositoryName, parseTag, type RepositoryName, type Tag } from './names.ts'

/** What names a manifest inside its repository. */
export type Reference =
  | { readonly tag: Tag; readonly digest?: never }
  | { readonly digest: Digest; readonly tag?: never }

/** A tag cannot hold a colon and a digest must, so one text is never both. Null for neither. */
export function parseReference(text: string): Reference | null {
  if (text.includes(':')) {
    const digest = parseDigest(text)
    return digest && { digest }
  }
  const tag = parseTag(text)
  return tag && { tag }
}

export function formatReference(reference: Reference): string {
  return reference.tag ?? reference.digest
}

/** The tag under which referrers are listed where the API is missing (OCI Distribution 1.1, "Referrers Tag Schema"): of a sha512 it has half. */
export function referrersTag(subject: Digest): Tag {
  const whole = `${algorithmOf(subject).slice(0, 32)}-${encodedOf(subject).slice(0, 64)}`
  return whole.replaceAll(/[^\w.-]/g, '-') as Tag
}

/** A manifest with its repository: `library/app:1.0`, `library/app@sha256:…`. */
export interface ArtifactName {
  readonly repository: RepositoryName
  readonly reference: Reference
}

/**
 * Reads `repository:tag` or `repository@digest`, as in the API's `from=` of a copy. Of `repository:tag@digest` the digest
 * counts, as it does for docker. A host is not understood: its port would read as a tag.
 */
export function parseArtifactName(text: string): ArtifactName | null {
  const at = text.lastIndexOf('@')
  const named = at === -1 ? text : text.slice(0, at)
  const colon = named.lastIndexOf(':')
  const repository = parseRepositoryName(colon === -1 ? named : named.slice(0, colon))
  const tag = colon === -1 ? null : parseTag(named.slice(colon + 1))
  if (repository === null || (colon !== -1 && tag === null)) return null
  if (at === -1) return tag && { repository, reference: { tag } }
  const digest = parseDigest(text.slice(at + 1))
  return digest && { repository, reference: { digest } }
}

export function formatArtifactName({ repository, reference }: ArtifactName): string {
  return reference.tag === undefined ? `${repository}@${reference.digest}` : `${repository}:${reference.tag}`
}
