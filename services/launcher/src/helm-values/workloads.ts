import { given, podOf } from './kubernetes-objects.ts'
import type { Overlay } from './overlay.ts'
import type { HelmValues, Tree } from './values.ts'

/** Which of ours does the work of a part of the chart. Harbor's core answers for tokens too, its registry pod holds both of these. */
const parts = [
  { at: 'nginx', ours: ['proxy'], resources: 'nginx' },
  { at: 'core', ours: ['core', 'token'], resources: 'core' },
  { at: 'jobservice', ours: ['jobservice'], resources: 'jobservice' },
  { at: 'exporter', ours: ['exporter'], resources: 'exporter' },
  { at: 'registry', ours: ['registry', 'registryctl'], resources: null },
] as const

/** How many pods of each, where, and how large. */
export function workloads(values: HelmValues, overlay: Overlay): void {
  for (const { at, ours, resources } of parts) {
    const count = values.whole(`${at}.replicas`)
    const pod = podSettings(values, at)
    const needs = resources === null ? undefined : values.tree(`${resources}.resources`)
    const limit = values.whole(`${at}.revisionHistoryLimit`)
    for (const name of ours) {
      overlay.replicas(name, count)
      const container = given('resources', needs)
      patchWorkload(overlay, 'Deployment', name, {
        pod,
        container: { name: 'haven', ...container },
        ...(limit !== undefined && { spec: { revisionHistoryLimit: limit } }),
      })
    }
  }
  const containers = { registry: 'registry.registry', registryctl: 'registry.controller' }
  for (const [name, at] of Object.entries(containers)) {
    patchWorkload(overlay, 'Deployment', name, {
      pod: {},
      container: { name: 'haven', ...given('resources', values.tree(`${at}.resources`)) },
    })
  }
  const annotations = values.tree('core.serviceAnnotations')
  if (annotations)
    overlay.patch('Service', 'core', { apiVersion: 'v1', kind: 'Service', metadata: { name: 'core', annotations } })
  for (const [at, name] of [
    ['database', 'postgres'],
    ['redis', 'redis'],
  ] as const) {
    if (values.peek(`${at}.type`) === 'external') continue
    const pod = { ...podSettings(values, `${at}.internal`), ...labelsOf(values, at) }
    const container = { name, ...given('resources', values.tree(`${at}.internal.resources`)) }
    patchWorkload(overlay, 'StatefulSet', name, { pod, container })
  }
  const memory = values.peek('database.type') === 'external' ? undefined : values.text('database.internal.shmSizeLimit')
  if (memory !== undefined) {
    overlay.patch(
      'StatefulSet',
      'postgres',
      podOf('postgres', { volumes: [{ name: 'memory', emptyDir: { medium: 'Memory', sizeLimit: memory } }] }),
    )
  }
}

function podSettings(values: HelmValues, at: string): Tree {
  return {
    ...labelsOf(values, at),
    ...given('nodeSelector', values.tree(`${at}.nodeSelector`)),
    ...given('tolerations', values.list(`${at}.tolerations`)),
    ...given('affinity', values.tree(`${at}.affinity`)),
    ...given('topologySpreadConstraints', values.list(`${at}.topologySpreadConstraints`)),
    ...given('priorityClassName', values.text(`${at}.priorityClassName`)),
  }
}

const labelsOf = (values: HelmValues, at: string): Tree => ({
  ...given('annotations', values.tree(`${at}.podAnnotations`)),
  ...given('labels', values.tree(`${at}.podLabels`)),
})

function patchWorkload(
  overlay: Overlay,
  kind: string,
  name: string,
  parts: { pod: Tree; container: Tree; spec?: Tree },
): void {
  const { annotations, labels, ...pod } = parts.pod
  const metadata = { ...given('annotations', annotations), ...given('labels', labels) }
  const containers = Object.keys(parts.container).length > 1 ? [parts.container] : []
  if (containers.length === 0 && !parts.spec && Object.keys(metadata).length + Object.keys(pod).length === 0) return
  const template = {
    ...(Object.keys(metadata).length > 0 && { metadata }),
    spec: { ...pod, ...(containers.length > 0 && { containers }) },
  }
  overlay.patch(kind, name, { apiVersion: 'apps/v1', kind, metadata: { name }, spec: { ...parts.spec, template } })
}

/** Sizes, classes and modes of what is claimed. */
export function volumes(values: HelmValues, overlay: Overlay): void {
  if (values.flag('persistence.enabled') === false) {
    overlay.say('persistence.enabled', 'cannot', 'data are always on claimed volumes')
  }
  const claims = 'persistence.persistentVolumeClaim'
  const files = (values.peek('persistence.imageChartStorage.type') ?? 'filesystem') === 'filesystem'
  if (files) {
    const mode = values.text(`${claims}.registry.accessMode`)
    patchClaim(values, overlay, `${claims}.registry`, 'haven-blobs', mode)
    if (mode === 'ReadWriteMany') {
      overlay.patch('Deployment', 'core|proxy|registry|registryctl', [
        { op: 'remove', path: '/spec/template/spec/affinity' },
      ])
    }
  }
  // Since chart 1.10 below jobLog; before, straight below jobservice.
  const jobLog = values.peek(`${claims}.jobservice.jobLog`) === undefined ? 'jobservice' : 'jobservice.jobLog'
  patchClaim(values, overlay, `${claims}.${jobLog}`, 'haven-logs', values.text(`${claims}.${jobLog}.accessMode`))
  for (const [part, name] of [
    ['database', 'postgres'],
    ['redis', 'redis'],
  ] as const) {
    if (values.peek(`${part}.type`) === 'external') continue
    const at = `${claims}.${part}`
    const asked = claimOf(values, at, values.text(`${at}.accessMode`))
    if (asked.length === 0) continue
    overlay.patch(
      'StatefulSet',
      name,
      asked.map(({ path, value }) => ({ op: 'add', path: `/spec/volumeClaimTemplates/0${path}`, value })),
    )
  }
}

function patchClaim(values: HelmValues, overlay: Overlay, at: string, name: string, mode: string | undefined): void {
  const asked = claimOf(values, at, mode)
  if (asked.length > 0)
    overlay.patch(
      'PersistentVolumeClaim',
      name,
      asked.map((change) => ({ op: 'add', ...change })),
    )
}

/** What is changed about a claim, as paths below it. */
function claimOf(values: HelmValues, at: string, mode: string | undefined): { path: string; value: unknown }[] {
  const size = values.text(`${at}.size`)
  const storageClass = values.text(`${at}.storageClass`)
  const annotations = values.tree(`${at}.annotations`)
  return [
    { path: '/spec/resources/requests/storage', value: size },
    // The chart's word for "no class": a volume made by hand.
    { path: '/spec/storageClassName', value: storageClass === '-' ? '' : storageClass },
    { path: '/spec/accessModes', value: mode === undefined ? undefined : [mode] },
    { path: '/metadata/annotations', value: annotations },
  ].filter(({ value }) => value !== undefined)
}
