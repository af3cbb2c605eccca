import { wholeConfig, type Processor } from './processor.ts'

/** Whatever somebody pushes that we know nothing else about: what its config says, if that is JSON. */
export const generic: Processor = {
  format: 'unknown',
  icon: 'unknown',
  recognises: () => true,
  attributes: wholeConfig,
  additions: {},
}
