import { documentOf } from './document.ts'
import { readFromTar } from './tar.ts'
import { isOf, json, wholeConfig, type Content, type Processor } from './processor.ts'

const CONFIG = 'application/vnd.cncf.helm.config.v1+json'
const CONTENT = 'application/vnd.cncf.helm.chart.content.v1.tar+gzip'
/** Helm's signature of a chart: Chart.yaml and the digest of the packed chart, clear-signed by OpenPGP. */
const PROVENANCE = 'application/vnd.cncf.helm.chart.provenance.v1.prov'

/** A Helm chart: the config is its Chart.yaml as JSON, the layer the packed chart. */
export const chart: Processor = {
  format: 'helm-chart',
  icon: 'chart',
  recognises: (artifact) => isOf(artifact, new Set([CONFIG])),
  attributes: wholeConfig,
  additions: {
    'values.yaml': (content) => fileOf(content, 'values.yaml', 'text/plain; charset=utf-8'),
    'readme.md': (content) => fileOf(content, 'readme.md', 'text/markdown; charset=utf-8'),
    async dependencies(content) {
      const dependencies = (await content.config())?.dependencies
      return json(Array.isArray(dependencies) ? dependencies : null)
    },
    provenance: (content) =>
      documentOf(
        content,
        content.layers.find(({ mediaType }) => mediaType === PROVENANCE),
      ),
  },
}

/** A file of the chart itself, not of one that it brings along. */
async function fileOf(content: Content, name: string, contentType: string) {
  const layer = content.layers.find(({ mediaType }) => mediaType === CONTENT) ?? content.layers[0]
  const packed = layer && (await content.open(layer))
  if (!packed) return null
  const body = await readFromTar(packed, 'gzip', (path) => path.toLowerCase().split('/').slice(1).join('/') === name)
  return body === null ? null : { contentType, body: body.toString('utf8') }
}
