import { documentOf } from './document.ts'
import { usualAttributes } from './image.ts'
import { isOf, type Processor } from './processor.ts'

const documents: Readonly<Record<string, string>> = {
  'application/vnd.openvex+json': 'OpenVEX',
  'application/openvex+json': 'OpenVEX',
  'application/vnd.csaf+json': 'CSAF',
  'application/csaf+json': 'CSAF',
}

/** Which vulnerabilities do not affect an artifact, and why: OpenVEX, or the VEX profile of CSAF. */
export const vex: Processor = {
  format: 'vex',
  icon: 'unknown',
  recognises: (artifact) => isOf(artifact, new Set(Object.keys(documents))),
  attributes(artifact, skipped) {
    const standard = Object.keys(documents).find((type) => isOf(artifact, new Set([type])))
    return { ...usualAttributes(artifact, skipped), ...(standard && { standard: documents[standard] }) }
  },
  additions: { vex: (content) => documentOf(content, content.layers[0]) },
}
