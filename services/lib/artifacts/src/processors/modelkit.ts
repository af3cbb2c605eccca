import { readFromTar, type Packing } from './tar.ts'
import { wholeConfig, type Content, type Processor } from './processor.ts'

const KIT = 'application/vnd.kitops.modelkit.'
const DOCUMENTS = /^application\/vnd\.kitops\.modelkit\.docs\.v1\.tar(\+gzip|\+zstd)?$/
const packings: Record<string, Packing> = { '': 'none', '+gzip': 'gzip', '+zstd': 'zstd' }

/** A ModelKit of KitOps: the config is its Kitfile as JSON, each layer an archive of models, data, code or documents. */
export const modelkit: Processor = {
  format: 'modelkit',
  icon: 'unknown',
  recognises: ({ artifactType, configMediaType }) =>
    [artifactType, configMediaType].some((type) => type?.startsWith(KIT)),
  attributes: wholeConfig,
  additions: {
    'readme.md': (content) => documentOf(content, ['readme', 'readme.md'], 'text/markdown; charset=utf-8'),
    license: (content) => documentOf(content, ['license', 'license.txt', 'license.md'], 'text/plain; charset=utf-8'),
  },
}

/** More archives of documents than this are not searched for one. */
const MAX_ARCHIVES = 10

async function documentOf(content: Content, names: readonly string[], contentType: string) {
  for (const layer of content.layers.filter(({ mediaType }) => DOCUMENTS.test(mediaType)).slice(0, MAX_ARCHIVES)) {
    const bytes = await content.open(layer)
    const [, packing = ''] = DOCUMENTS.exec(layer.mediaType)!
    const body =
      bytes &&
      (await readFromTar(bytes, packings[packing]!, (path) => names.includes(path.replace(/^\.\//, '').toLowerCase())))
    if (body) return { contentType, body: body.toString('utf8') }
  }
  return null
}
