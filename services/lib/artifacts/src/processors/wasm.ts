import type { Annotations } from '@haven/oci'
import { buildHistory, hasImageConfig, imageAttributes } from './image.ts'
import { isOf, wholeConfig, type Described, type Processor } from './processor.ts'

/** Of wasm-to-oci, and of the CNCF's "Wasm OCI Artifact Layout". */
const types = new Set([
  'application/vnd.wasm.config.v1+json',
  'application/vnd.wasm.config.v0+json',
  'application/vnd.wasm.content.layer.v1+wasm',
  'application/wasm',
])
const TITLE = 'org.opencontainers.image.title'

/** An image that a container runtime starts in a WebAssembly engine says so in its annotations (Harbor 2.6). */
export const isAnnotatedAsWasm = (annotations: Annotations): boolean =>
  annotations['module.wasm.image/variant'] === 'compat' || annotations['run.oci.handler'] === 'wasm'

/** A WebAssembly module. */
export const wasm: Processor = {
  format: 'wasm',
  icon: 'wasm',
  recognises: (artifact) =>
    artifact.kind === 'image' && (isAnnotatedAsWasm(artifact.annotations) || isOf(artifact, types)),
  attributes: (artifact, skipped) => ({
    ...(hasImageConfig(artifact)
      ? imageAttributes(artifact)
      : { ...wholeConfig(artifact, skipped), ...moduleOf(artifact) }),
    'manifest.config.mediaType': artifact.configMediaType ?? '',
  }),
  additions: { build_history: buildHistory },
}

function moduleOf({ layers: [layer] }: Described) {
  return layer ? { 'manifest.layers.mediaType': layer.mediaType, [TITLE]: layer.annotations[TITLE] ?? '' } : {}
}
