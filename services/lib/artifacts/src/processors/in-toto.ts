import { documentOf } from './document.ts'
import { usualAttributes } from './image.ts'
import { annotatedWith, isOf, type Processor } from './processor.ts'

/** As BuildKit pushes statements beside the platforms of an index, and as Cosign pushed them, signed, before it wrote bundles. */
const types = new Set([
  'application/vnd.in-toto+json',
  'application/vnd.in-toto.provenance+dsse',
  'application/vnd.docker.attestation.manifest.v1+json',
  'application/vnd.dsse.envelope.v1+json',
])
/** Where each of them writes what a statement is about. */
const PREDICATES = ['in-toto.io/predicate-type', 'predicateType']

/** Statements of in-toto about another artifact: how it was made, what is in it. */
export const inToto: Processor = {
  format: 'in-toto',
  icon: 'unknown',
  recognises: (artifact) => isOf(artifact, types),
  attributes(artifact, skipped) {
    const predicateTypes = PREDICATES.flatMap((name) => annotatedWith(artifact, name))
    return { ...usualAttributes(artifact, skipped), ...(predicateTypes.length > 0 && { predicateTypes }) }
  },
  additions: {
    /** The first; of more, each is a layer of its own. */
    statement: (content) =>
      documentOf(
        content,
        content.layers.find(({ mediaType }) => types.has(mediaType)),
      ),
  },
}
