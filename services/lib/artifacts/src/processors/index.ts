import { buildkitCache } from './buildkit-cache.ts'
import { chart } from './chart.ts'
import { cnab } from './cnab.ts'
import { cosignSignature } from './cosign-signature.ts'
import { flatpak } from './flatpak.ts'
import { generic } from './generic.ts'
import { image } from './image.ts'
import { inToto } from './in-toto.ts'
import { indexOfManifests } from './index-of-manifests.ts'
import { model } from './model.ts'
import { modelkit } from './modelkit.ts'
import { notationSignature } from './notation-signature.ts'
import { nydus } from './nydus.ts'
import { opaBundle } from './opa-bundle.ts'
import type { Described, Processor } from './processor.ts'
import { harborSbom, sbom } from './sbom.ts'
import { sif } from './sif.ts'
import { sigstoreBundle } from './sigstore-bundle.ts'
import { vex } from './vex.ts'
import { wasm } from './wasm.ts'

/** Whoever recognises an artifact first knows best: what looks like an image to older tools comes before images, evidence by its envelope. */
export const processors: readonly Processor[] = [
  chart,
  cnab,
  harborSbom,
  model,
  modelkit,
  opaBundle,
  sif,
  wasm,
  cosignSignature,
  notationSignature,
  sigstoreBundle,
  vex,
  sbom,
  inToto,
  buildkitCache,
  nydus,
  flatpak,
  image,
  indexOfManifests,
  generic,
]

/** What knows how to read an artifact. */
export const processorOf = (artifact: Described): Processor =>
  processors.find(({ recognises }) => recognises(artifact)) ?? generic

/** The processor that called an artifact this. */
export const processorNamed = (format: string): Processor | null =>
  processors.find((each) => each.format === format) ?? null

/** How refusals of Harbor name the types that it knows. */
const harborTitles = new Map([
  ['IMAGE', 'IMAGE(manifest version 2)'],
  ['CHART', 'CHART'],
  ['CNAI', 'CNAI'],
  ['SBOM', 'SBOM'],
  ['WASM', 'WASM'],
])

/** Null for a type that Harbor knows nothing of. */
export const harborTitleOf = (type: string): string | null => harborTitles.get(type) ?? null
