import { wholeConfig, type Processor } from './processor.ts'

/** A Cloud Native Application Bundle: an index, of which one child holds the bundle.json as its config (CNAB 200, "registries"). */
export const cnab: Processor = {
  format: 'cnab',
  icon: 'cnab',
  recognises: ({ kind, type }) => kind === 'index' && type === 'CNAB',
  attributes: wholeConfig,
  additions: {},
}
