import { readAll } from './bounded.ts'
import { fileTreeOf } from './file-tree.ts'
import { readFromTar, type Packing } from './tar.ts'
import { isOf, json, wholeConfig, type Content, type Layer, type Processor } from './processor.ts'

/** ModelPack of the CNCF, and what it was before that: the artifact, its config, where a layer says which file it is. */
const types = new Set([
  'application/vnd.cncf.model.manifest.v1+json',
  'application/vnd.cncf.model.config.v1+json',
  'application/vnd.cnai.model.manifest.v1+json',
  'application/vnd.cnai.model.config.v1+json',
])
const PATHS = ['org.cncf.model.filepath', 'org.cnai.model.filepath']
const DOCUMENT = /^application\/vnd\.(?:cncf|cnai)\.model\.doc\.v1\.(raw|tar|tar\+gzip|tar\+zstd)$/
const packings: Record<string, Packing> = { tar: 'none', 'tar+gzip': 'gzip', 'tar+zstd': 'zstd' }
/** As Harbor's. */
const MAX_DOCUMENT_BYTES = 4 * 1024 * 1024

/** A model for machine learning: weights, code, data and documents, a layer each. */
export const model: Processor = {
  format: 'model',
  icon: 'cnai',
  recognises: (artifact) => isOf(artifact, types),
  attributes: wholeConfig,
  additions: {
    'readme.md': (content) => documentOf(content, ['readme', 'readme.md'], 'text/markdown; charset=utf-8'),
    license: (content) => documentOf(content, ['license', 'license.txt'], 'text/plain; charset=utf-8'),
    files: async ({ layers }) =>
      json(fileTreeOf(layers.map((layer) => ({ path: pathOf(layer), sizeBytes: layer.sizeBytes })))),
  },
}

function pathOf({ annotations }: Layer): string {
  const name = PATHS.find((annotation) => Object.hasOwn(annotations, annotation))
  return name === undefined ? '' : annotations[name]!
}

async function documentOf(content: Content, names: readonly string[], contentType: string) {
  const layer = content.layers.find(
    (each) => DOCUMENT.test(each.mediaType) && names.includes(pathOf(each).toLowerCase()),
  )
  if (!layer || layer.sizeBytes > MAX_DOCUMENT_BYTES) return null
  const bytes = await content.open(layer)
  if (!bytes) return null
  const [, packing = ''] = DOCUMENT.exec(layer.mediaType)!
  const body =
    packing === 'raw'
      ? await readAll(bytes, MAX_DOCUMENT_BYTES)
      : await readFromTar(bytes, packings[packing]!, () => true)
  return body && { contentType, body: body.toString('utf8') }
}
