import { createHash } from 'node:crypto'
import type { Branded } from './brand.ts'

/** `algorithm:encoded` in the grammar of the image specification; known algorithms have their exact form. */
export type Digest = Branded<'Digest'>

/** Algorithms whose bytes we can verify. */
export const supportedAlgorithms = ['sha256', 'sha512'] as const
export type SupportedAlgorithm = (typeof supportedAlgorithms)[number]

// Image specification 1.1, descriptor.md "Digests" and "Registered Algorithms": hexadecimal is lower case.
const encodedForms: Record<string, RegExp> = {
  sha256: /^[a-f0-9]{64}$/,
  sha512: /^[a-f0-9]{128}$/,
  blake3: /^[a-f0-9]{64}$/,
}
const grammar = /^[a-z0-9]+(?:[+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]+$/
const maxLength = 255

/** Null for a text that is no digest. One of an algorithm that we do not know is a digest: see `isSupportedDigest`. */
export function parseDigest(text: string): Digest | null {
  if (text.length > maxLength || !grammar.test(text)) return null
  const colon = text.indexOf(':')
  const algorithm = text.slice(0, colon)
  const form = Object.hasOwn(encodedForms, algorithm) ? encodedForms[algorithm] : undefined
  return form === undefined || form.test(text.slice(colon + 1)) ? (text as Digest) : null
}

/** `sha256` of `sha256:9f86…`. */
export function algorithmOf(digest: Digest): string {
  return digest.slice(0, digest.indexOf(':'))
}

/** `9f86…` of `sha256:9f86…`: hexadecimal for all registered algorithms. */
export function encodedOf(digest: Digest): string {
  return digest.slice(digest.indexOf(':') + 1)
}

export function isSupportedAlgorithm(algorithm: string): algorithm is SupportedAlgorithm {
  return (supportedAlgorithms as readonly string[]).includes(algorithm)
}

/** True when we can verify content against it. What we cannot verify may be a descriptor in a manifest, nothing else. */
export function isSupportedDigest(digest: Digest): boolean {
  return isSupportedAlgorithm(algorithmOf(digest))
}

/** Collects content and names it. */
export interface DigestHasher {
  update(bytes: Uint8Array): void
  /** Ends the hasher. */
  digest(): Digest
}

export function createDigestHasher(algorithm: SupportedAlgorithm): DigestHasher {
  const hash = createHash(algorithm)
  return {
    update: (bytes) => void hash.update(bytes),
    digest: () => `${algorithm}:${hash.digest('hex')}` as Digest,
  }
}

/** The digest of content that is whole in memory. */
export function digestOf(content: Uint8Array | string, algorithm: SupportedAlgorithm = 'sha256'): Digest {
  return `${algorithm}:${createHash(algorithm).update(content).digest('hex')}` as Digest
}
