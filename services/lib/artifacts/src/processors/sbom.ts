import { readAll } from './bounded.ts'
import { wholeConfig, type Processor } from './processor.ts'

const MAX_BYTES = 32 * 1024 * 1024

/** A bill of materials as Harbor's scanners push it: the layer is the document (harbor-jobs-and-data.md, SBOM generation). */
export const sbom: Processor = {
  title: 'SBOM',
  icon: 'sbom',
  attributes: wholeConfig,
  additions: {
    async sbom({ layers, open }) {
      const [layer] = layers
      if (!layer || layer.sizeBytes > MAX_BYTES) return null
      const bytes = await open(layer)
      const body = bytes && (await readAll(bytes, MAX_BYTES))
      return body && { contentType: 'application/json; charset=utf-8', body: body.toString('utf8') }
    },
  },
}
