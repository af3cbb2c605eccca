import { documentOf } from './document.ts'
import { usualAttributes } from './image.ts'
import { isOf, type Processor } from './processor.ts'

const documents: Readonly<Record<string, string>> = {
  'application/spdx+json': 'SPDX',
  'text/spdx+json': 'SPDX',
  'text/spdx': 'SPDX',
  'text/spdx+xml': 'SPDX',
  'application/vnd.cyclonedx+json': 'CycloneDX',
  'application/vnd.cyclonedx+xml': 'CycloneDX',
  'application/vnd.cyclonedx': 'CycloneDX',
  'application/vnd.syft+json': 'Syft',
}

/** A bill of materials as Harbor's scanners push it: the layer is the document (harbor-jobs-and-data.md, SBOM generation). */
export const harborSbom: Processor = {
  format: 'harbor-sbom',
  icon: 'sbom',
  recognises: ({ type }) => type === 'SBOM',
  attributes: usualAttributes,
  additions: { sbom: (content) => documentOf(content, content.layers[0]) },
}

/** A bill of materials that somebody attached: SPDX or CycloneDX, by the type of the artifact or of its layer. */
export const sbom: Processor = {
  format: 'sbom',
  icon: 'unknown',
  recognises: (artifact) => isOf(artifact, new Set(Object.keys(documents))),
  attributes(artifact, skipped) {
    const standard = Object.keys(documents).find((type) => isOf(artifact, new Set([type])))
    return { ...usualAttributes(artifact, skipped), ...(standard && { standard: documents[standard] }) }
  },
  additions: {
    sbom: (content) =>
      documentOf(
        content,
        content.layers.find(({ mediaType }) => Object.hasOwn(documents, mediaType)) ?? content.layers[0],
      ),
  },
}
