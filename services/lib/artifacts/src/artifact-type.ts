import { mediaTypes, type Manifest } from '@haven/oci'
import { isAnnotatedAsWasm } from './processors/wasm.ts'

const known = new Map([
  [mediaTypes.ociConfig as string, 'IMAGE'],
  [mediaTypes.dockerConfig, 'IMAGE'],
  ['application/vnd.cncf.helm.config.v1+json', 'CHART'],
  ['application/vnd.wasm.config.v1+json', 'WASM'],
  ['application/vnd.goharbor.harbor.sbom.v1', 'SBOM'],
  ['application/vnd.cncf.model.manifest.v1+json', 'CNAI'],
  ['application/vnd.cnab.manifest.v1', 'CNAB'],
])
const byName = (type: string | undefined) =>
  /^application\/vnd\.[^.]*\.(.*)\.config\.[^.]*(\+[^.]*)?$/.exec(type ?? '')?.[1]?.toUpperCase()

/** Harbor's word for what an artifact is: IMAGE, CHART, …, UNKNOWN (harbor-features.md H, "artifact types"). */
export function artifactTypeWord({ kind, artifactType, config, annotations }: Manifest): string {
  const type =
    kind === 'index'
      ? (annotations['org.opencontainers.artifactType'] ?? artifactType)
      : (artifactType ?? config?.mediaType)
  if (type === null || type === undefined) return kind === 'unknown-artifact' ? 'UNKNOWN' : 'IMAGE'
  const word = known.get(type) ?? known.get(config?.mediaType ?? '')
  if (word === 'IMAGE' && kind !== 'index' && isAnnotatedAsWasm(annotations)) return 'WASM'
  // Tools of before the artifact type name what they push by the config's type alone.
  return word ?? byName(type) ?? byName(config?.mediaType) ?? 'UNKNOWN'
}
