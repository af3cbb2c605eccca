import { documentOf } from './document.ts'
import { usualAttributes } from './image.ts'
import { isOf, type Processor } from './processor.ts'

const PAYLOAD = 'application/vnd.dev.cosign.simplesigning.v1+json'
const types = new Set([PAYLOAD, 'application/vnd.dev.cosign.artifact.sig.v1+json'])

/** A signature that Cosign made before it wrote bundles: the layer is what was signed, its annotations are the signature. */
export const cosignSignature: Processor = {
  format: 'cosign-signature',
  icon: 'unknown',
  recognises: (artifact) => isOf(artifact, types),
  attributes: usualAttributes,
  additions: {
    signature: (content) =>
      documentOf(
        content,
        content.layers.find(({ mediaType }) => mediaType === PAYLOAD),
      ),
  },
}
