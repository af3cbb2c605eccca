import { isOf, wholeConfig, type Processor } from './processor.ts'

/** Policies of Open Policy Agent, as Conftest pushes them file by file, or as one bundle. */
const types = new Set([
  'application/vnd.cncf.openpolicyagent.config.v1+json',
  'application/vnd.cncf.openpolicyagent.policy.layer.v1+rego',
  'application/vnd.cncf.openpolicyagent.manifest.layer.v1+json',
  'application/vnd.cncf.openpolicyagent.data.layer.v1+json',
])

/** A bundle of policies for Open Policy Agent. */
export const opaBundle: Processor = {
  format: 'opa-bundle',
  icon: 'unknown',
  recognises: (artifact) => isOf(artifact, types),
  attributes: wholeConfig,
  additions: {},
}
