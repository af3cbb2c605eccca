import { isOf, wholeConfig, type Processor } from './processor.ts'

const types = new Set(['application/vnd.sylabs.sif.config.v1+json', 'application/vnd.sylabs.sif.layer.v1.sif'])

/** A container of Singularity or Apptainer: one layer, the SIF file; its config is empty. */
export const sif: Processor = {
  format: 'sif',
  icon: 'unknown',
  recognises: (artifact) => isOf(artifact, types),
  attributes: wholeConfig,
  additions: {},
}
