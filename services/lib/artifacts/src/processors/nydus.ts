import { buildHistory, hasImageConfig, imageAttributes } from './image.ts'
import { isOf, type Processor } from './processor.ts'

const types = new Set(['application/vnd.oci.image.layer.nydus.blob.v1'])

/** An image in the format of Nydus, whose parts are loaded when they are read: a bootstrap and blobs instead of tar archives. */
export const nydus: Processor = {
  format: 'nydus',
  icon: 'image',
  recognises: (artifact) => hasImageConfig(artifact) && isOf(artifact, types),
  attributes: imageAttributes,
  additions: { build_history: buildHistory },
}
