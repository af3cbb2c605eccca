import { documentOf } from './document.ts'
import { usualAttributes } from './image.ts'
import type { Processor } from './processor.ts'

const BUNDLE = /^application\/vnd\.dev\.sigstore\.bundle(?:\.v\d+\.\d+)?\+json/
const PREDICATE = 'dev.sigstore.bundle.predicateType'

/** A bundle of Sigstore: a signature or an attestation with all that is needed to verify it; an annotation says which. */
export const sigstoreBundle: Processor = {
  format: 'sigstore-bundle',
  icon: 'unknown',
  recognises: ({ artifactType, layers }) =>
    [artifactType ?? '', ...layers.map(({ mediaType }) => mediaType)].some((type) => BUNDLE.test(type)),
  attributes: (artifact, skipped) => ({
    ...usualAttributes(artifact, skipped),
    ...(Object.hasOwn(artifact.annotations, PREDICATE) && { predicateType: artifact.annotations[PREDICATE] }),
  }),
  additions: {
    statement: (content) =>
      documentOf(
        content,
        content.layers.find(({ mediaType }) => BUNDLE.test(mediaType)),
      ),
  },
}
