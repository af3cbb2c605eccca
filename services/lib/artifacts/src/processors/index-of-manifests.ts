import type { Processor } from './processor.ts'

/** An index: what there is to tell lies in its children. */
export const indexOfManifests: Processor = {
  format: 'index',
  icon: 'image',
  recognises: ({ kind }) => kind === 'index',
  attributes: () => ({}),
  additions: {},
}
