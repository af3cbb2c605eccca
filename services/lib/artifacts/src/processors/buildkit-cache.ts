import { mediaTypes } from '@haven/oci'
import type { Processor } from './processor.ts'

const lengthOf = (list: unknown) => (Array.isArray(list) ? list.length : 0)

/** What a builder keeps so that the next one need not repeat its work: an image, or an index in older versions of BuildKit. */
export const buildkitCache: Processor = {
  format: 'buildkit-cache',
  icon: 'unknown',
  recognises: ({ configMediaType }) => configMediaType === mediaTypes.buildkitCacheConfig,
  attributes: ({ config }) =>
    config === null ? {} : { layers: lengthOf(config.layers), records: lengthOf(config.records) },
  additions: {},
}
