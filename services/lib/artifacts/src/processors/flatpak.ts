import { buildHistory, hasImageConfig, imageAttributes, labelsOf } from './image.ts'
import { textOf, type Processor } from './processor.ts'

const REF = 'org.flatpak.ref'

/** A Flatpak application or runtime: an image whose labels say which, in what Flatpak calls a ref. */
export const flatpak: Processor = {
  format: 'flatpak',
  icon: 'image',
  recognises: (artifact) =>
    hasImageConfig(artifact) &&
    (Object.hasOwn(artifact.annotations, REF) || textOf(labelsOf(artifact.config)[REF]) !== ''),
  attributes: imageAttributes,
  additions: { build_history: buildHistory },
}
