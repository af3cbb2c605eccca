import type { Processor } from './processor.ts'

/** An index: what there is to tell lies in its children. */
export const indexOfManifests: Processor = { title: null, icon: 'image', attributes: () => ({}), additions: {} }
