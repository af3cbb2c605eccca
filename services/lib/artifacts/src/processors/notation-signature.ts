import { documentOf } from './document.ts'
import { usualAttributes } from './image.ts'
import { isOf, type Processor } from './processor.ts'

const types = new Set(['application/vnd.cncf.notary.signature'])
/** Of the certificates that signed, a JSON list in a text (Notary Project, "OCI signatures"). */
const THUMBPRINTS = 'io.cncf.notary.x509chain.thumbprint#S256'

/** A signature of the Notary Project: the layer is its envelope, JWS or COSE. */
export const notationSignature: Processor = {
  format: 'notation-signature',
  icon: 'unknown',
  recognises: (artifact) => isOf(artifact, types),
  attributes: (artifact, skipped) => ({
    ...usualAttributes(artifact, skipped),
    ...(Object.hasOwn(artifact.annotations, THUMBPRINTS) && { thumbprints: artifact.annotations[THUMBPRINTS] }),
  }),
  additions: {
    // A COSE envelope is no text.
    signature: (content) =>
      documentOf(
        content,
        content.layers.find(({ mediaType }) => mediaType === 'application/jose+json'),
      ),
  },
}
