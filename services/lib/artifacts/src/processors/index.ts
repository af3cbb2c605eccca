import { chart } from './chart.ts'
import { generic } from './generic.ts'
import { image } from './image.ts'
import { indexOfManifests } from './index-of-manifests.ts'
import type { Processor } from './processor.ts'
import { sbom } from './sbom.ts'
import { wasm } from './wasm.ts'

/** By Harbor's word for the type of an artifact. */
const processors = new Map<string, Processor>([
  ['IMAGE', image],
  ['CHART', chart],
  ['WASM', wasm],
  ['SBOM', sbom],
])

/** What knows how to read an artifact. */
export const processorOf = ({ kind, type }: { kind: 'image' | 'index'; type: string }): Processor =>
  kind === 'index' ? indexOfManifests : (processors.get(type) ?? generic)
