import { execFileSync } from 'node:child_process'
import { findTool } from '@haven/testkit/tools'
import { parseAllDocuments } from 'yaml'

export type Labels = Record<string, string>

type Probe = {
  httpGet?: { path: string; port: string }
  exec?: unknown
  periodSeconds: number
  failureThreshold?: number
}
type FromSecret = { secretKeyRef?: { name: string; key: string } }

export type Container = {
  name: string
  image: string
  ports?: { name: string; containerPort: number }[]
  env?: { name: string; value?: string; valueFrom?: FromSecret }[]
  envFrom?: { configMapRef?: { name: string }; secretRef?: { name: string } }[]
  lifecycle?: { preStop: { sleep: { seconds: number } } }
  startupProbe?: Probe
  livenessProbe?: Probe
  readinessProbe?: Probe
  resources: { requests: Labels; limits: Labels }
  securityContext: Record<string, unknown>
  volumeMounts?: { name: string; mountPath: string }[]
}

export type PodSpec = {
  automountServiceAccountToken?: boolean
  enableServiceLinks?: boolean
  terminationGracePeriodSeconds: number
  securityContext: Record<string, unknown>
  topologySpreadConstraints?: {
    topologyKey: string
    maxSkew: number
    whenUnsatisfiable: string
    labelSelector: Selector
    matchLabelKeys: string[]
  }[]
  initContainers?: Container[]
  containers: [Container]
  volumes?: Record<string, unknown>[]
}

type Selector = {
  matchLabels?: Labels
  matchExpressions?: { key: string; operator: string; values: string[] }[]
}

type Peer = { podSelector?: Selector; namespaceSelector?: Selector; ipBlock?: { cidr: string; except?: string[] } }
type Rule = { from?: Peer[]; to?: Peer[]; ports?: { port: number | string; protocol?: string }[] }

export type Manifest = {
  apiVersion: string
  kind: string
  metadata: { name: string; namespace?: string; labels?: Labels; annotations?: Labels }
  data?: Labels
  // oxlint-disable-next-line typescript/no-explicit-any -- as many shapes as kinds
  spec: any
}

export type Workload = {
  name: string
  kind: string
  labels: Labels
  pod: PodSpec
  container: Container
  spec: Manifest['spec']
}

/** What `kubectl apply -k` would send. @throws with kustomize's complaint */
export function render(folder: string): Manifest[] {
  const text = execFileSync(findTool('kubectl')!, ['kustomize', folder], {
    encoding: 'utf8',
    stdio: 'pipe',
    maxBuffer: 2 ** 26,
  })
  return parseAllDocuments(text).map((document) => document.toJS() as Manifest)
}

export const ofKind = (manifests: readonly Manifest[], ...kinds: string[]) =>
  manifests.filter(({ kind }) => kinds.includes(kind))

export const workloads = (manifests: readonly Manifest[]): Workload[] =>
  ofKind(manifests, 'Deployment', 'StatefulSet').map(({ kind, metadata, spec }) => {
    const { template } = spec as { template: { metadata: { labels: Labels }; spec: PodSpec } }
    return {
      name: metadata.name,
      kind,
      labels: template.metadata.labels,
      pod: template.spec,
      container: template.spec.containers[0],
      spec,
    }
  })

/** The connections within the namespace that both sides' policies let pass: `core > registry:5000`, sorted. */
export function arrowsWithin(manifests: readonly Manifest[]): string[] {
  const pods = workloads(manifests)
  const policies = policiesOf(manifests)
  const arrows = pods.flatMap((from) =>
    pods.flatMap((to) =>
      (to.container.ports ?? [])
        .filter((port) => {
          const leaves = policies.some(
            (p) => p.leaves(from) && p.egress.some((rule) => reaches(rule.to, to) && opens(rule, port)),
          )
          const enters = policies.some(
            (p) => p.enters(to) && p.ingress.some((rule) => reaches(rule.from, from) && opens(rule, port)),
          )
          return leaves && enters
        })
        .map(({ containerPort }) => `${from.name} > ${to.name}:${containerPort}`),
    ),
  )
  return arrows.sort()
}

/** The ways out of the namespace: `core > 0.0.0.0/0 except …:443`, `any` without ports; sorted. */
export function waysOut(manifests: readonly Manifest[]): string[] {
  const policies = policiesOf(manifests)
  const found = workloads(manifests).flatMap((from) =>
    policies
      .filter((p) => p.leaves(from))
      .flatMap((p) => p.egress)
      .flatMap((rule) => (rule.to ?? []).map((peer) => ({ peer, rule })))
      .filter(({ peer }) => peer.ipBlock ?? peer.namespaceSelector)
      .map(({ peer, rule }) => {
        const { cidr, except = [] } = peer.ipBlock ?? {
          cidr: Object.values(peer.namespaceSelector?.matchLabels ?? {}).join(),
        }
        const ports = rule.ports?.map(({ port }) => port).join('+') ?? 'any'
        return `${from.name} > ${[cidr, ...except].join(' except ')}:${ports}`
      }),
  )
  return [...new Set(found)].sort()
}

/** The ports that somebody outside of the namespace reaches: `proxy:8080`, or from where; sorted. */
export function waysIn(manifests: readonly Manifest[]): string[] {
  const policies = policiesOf(manifests)
  const found = workloads(manifests).flatMap((to) =>
    (to.container.ports ?? []).flatMap((port) =>
      policies
        .filter((p) => p.enters(to))
        .flatMap((p) => p.ingress)
        .filter((rule) => opens(rule, port))
        .flatMap((rule) => rule.from?.filter(({ podSelector }) => !podSelector) ?? [null])
        .map((peer) => `${to.name}:${port.containerPort}${peer ? ` from ${JSON.stringify(peer)}` : ''}`),
    ),
  )
  return found.sort()
}

/** Pods that no policy shuts, in one direction or the other. */
export function unshut(manifests: readonly Manifest[]): string[] {
  const policies = policiesOf(manifests)
  return workloads(manifests)
    .filter((pod) => !policies.some((p) => p.enters(pod)) || !policies.some((p) => p.leaves(pod)))
    .map(({ name }) => name)
}

function policiesOf(manifests: readonly Manifest[]) {
  return ofKind(manifests, 'NetworkPolicy').map(({ spec }) => {
    const {
      podSelector,
      policyTypes,
      ingress = [],
      egress = [],
    } = spec as {
      podSelector: Selector
      policyTypes: string[]
      ingress?: Rule[]
      egress?: Rule[]
    }
    const applies = (type: string) => (pod: Workload) => policyTypes.includes(type) && selects(podSelector, pod.labels)
    return { ingress, egress, enters: applies('Ingress'), leaves: applies('Egress') }
  })
}

/** Without peers a rule is for everybody. */
const reaches = (peers: Peer[] | undefined, pod: Workload) =>
  peers === undefined ||
  peers.some(
    ({ podSelector, namespaceSelector }) => podSelector && !namespaceSelector && selects(podSelector, pod.labels),
  )

const opens = (rule: Rule, port: { name: string; containerPort: number }) =>
  rule.ports === undefined || rule.ports.some(({ port: open }) => open === port.containerPort || open === port.name)

export function selects({ matchLabels = {}, matchExpressions = [] }: Selector, labels: Labels): boolean {
  return (
    Object.entries(matchLabels).every(([key, value]) => labels[key] === value) &&
    matchExpressions.every(({ key, operator, values }) => {
      if (operator !== 'In') throw new Error(`the operator ${operator} is not known here`)
      return values.includes(labels[key] ?? '')
    })
  )
}
