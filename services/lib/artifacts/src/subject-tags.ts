import { parseDigest, type Digest } from '@haven/oci'

/**
 * The manifest that a tag is about by its name alone: `sha256-<hex>.sig`, `.att` and `.sbom` are how cosign attached signatures,
 * attestations and bills of materials before OCI 1.1 had referrers.
 */
export function subjectOfCosignTag(tag: string): Digest | null {
  const [, name] = /^(.+)\.(?:sig|att|sbom)$/.exec(tag) ?? []
  return name === undefined ? null : subjectOfFallbackTag(name)
}

/** OCI Distribution 1.1, "Referrers Tag Schema": `<algorithm>-<hex>`. */
export function subjectOfFallbackTag(tag: string): Digest | null {
  const dash = tag.indexOf('-')
  return dash === -1 ? null : parseDigest(`${tag.slice(0, dash)}:${tag.slice(dash + 1)}`)
}

/** Of a fallback tag that holds half of a digest (`referrersTag`): what the digest begins with. */
export function beginningOfSubject(tag: string): string | null {
  const [, half] = /^sha512-([a-f0-9]{64})$/.exec(tag) ?? []
  return half === undefined ? null : `sha512:${half}`
}
