import { execFileSync } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { runHaven } from '@haven/testkit'
import { lacking, titled } from '@haven/testkit/tools'
import { CLUSTER_TOOLS, startCluster, type Cluster } from './cluster.ts'
import {
  arrowsWithin,
  ofKind,
  render,
  selects,
  unshut,
  waysIn,
  waysOut,
  workloads,
  type Manifest,
} from './manifests.ts'

const source = fileURLToPath(new URL('../../deploy/kubernetes', import.meta.url))
const sizes = ['small', 'ha', 'dev'] as const
type Size = (typeof sizes)[number]

const { version } = JSON.parse(readFileSync(fileURLToPath(new URL('../../package.json', import.meta.url)), 'utf8')) as {
  version: string
}
const SERVICES = ['core', 'exporter', 'jobservice', 'log-collector', 'proxy', 'registry', 'registryctl', 'token']
const WITH_DATABASE = ['core', 'exporter', 'jobservice', 'registry', 'registryctl', 'token']
/** A second one would write the same files, or say the same figures. */
const SINGLE = ['exporter', 'log-collector']

const outside = {
  DATABASE_URL: 'postgresql://haven:x4Tq@db.example.com/haven',
  REDIS_URL: 'rediss://:x4Tq@redis.example.com',
  S3_ACCESS_KEY: 'key-of-haven',
  S3_SECRET_KEY: 'x4TqVb7LsPw2',
}

// A copy, since secrets are made within.
let folder: string
const at = (...names: string[]) => join(folder, ...names)
const makeSecrets = (overlay: string, env: Record<string, string> = {}) =>
  execFileSync(at('make-secrets'), [overlay], {
    encoding: 'utf8',
    stdio: 'pipe',
    env: { PATH: process.env.PATH, ...env },
  })

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'haven-kubernetes-'))
  cpSync(source, folder, { recursive: true, filter: (path) => !/\/overlays\/[^/]+\/secrets(\/|$)/.test(path) })
  for (const size of sizes) makeSecrets(at('overlays', size), size === 'ha' ? outside : {})
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** An overlay of the test's own. */
function overlay(name: string, kustomization: string, files: Record<string, string> = {}): string {
  mkdirSync(at('overlays', name, 'secrets'), { recursive: true })
  for (const [file, text] of Object.entries({ 'kustomization.yaml': kustomization, ...files }))
    writeFileSync(at('overlays', name, file), text)
  return at('overlays', name)
}

describe('make-secrets', () => {
  const secretsOf = (size: Size) =>
    ['internal', 'admin', 'database', 'redis']
      .map((part) => readFileSync(at('overlays', size, 'secrets', `${part}.env`), 'utf8'))
      .join('')

  it('R8: makes every secret anew for each installation, readable by its owner only', () => {
    const values = [secretsOf('small'), secretsOf('dev')].flatMap((text) =>
      [...text.matchAll(/^(\w+)=(.+)$/gm)].filter(([, name]) => !name!.endsWith('_URL')).map(([, , value]) => value!),
    )
    expect(values).toHaveLength(2 * 9)
    expect(new Set(values).size).toBe(values.length)
    expect(values.every((value) => value.length >= 32)).toBe(true)
    expect(statSync(at('overlays/small/secrets/internal.env')).mode & 0o077).toBe(0)
  })

  it('leaves what is there', () => {
    const before = secretsOf('small')
    expect(makeSecrets(at('overlays/small'))).toBe('')
    expect(secretsOf('small')).toBe(before)
  })

  it('takes the passwords of what is outside from its environment, or says which are missing', () => {
    expect(secretsOf('ha')).toContain(`DATABASE_URL=${outside.DATABASE_URL}\n`)
    const bare = overlay('bare', readFileSync(at('overlays/ha/kustomization.yaml'), 'utf8'))
    expect(() => makeSecrets(bare)).toThrow('set DATABASE_URL')
    expect(() => makeSecrets(bare, { DATABASE_URL: outside.DATABASE_URL })).toThrow('set REDIS_URL')
  })
})

const noKubectl = lacking('kubectl')
const describeRendered = noKubectl ? describe.skip : describe

describeRendered(titled('what kustomize makes of the overlays', noKubectl), () => {
  let rendered: Record<Size, Manifest[]>
  beforeAll(() => {
    rendered = Object.fromEntries(sizes.map((size) => [size, render(at('overlays', size))])) as Record<Size, Manifest[]>
  })

  describe.each(sizes)('%s', (size) => {
    const pods = () => workloads(rendered[size])
    const ours = () => pods().filter(({ name }) => SERVICES.includes(name))
    const containers = () => pods().flatMap(({ pod }) => [...(pod.initContainers ?? []), ...pod.containers])

    it('has every service, and Postgres, Redis and a store unless they are outside', () => {
      const inside = { small: ['minio', 'postgres', 'redis'], ha: [], dev: ['postgres', 'redis'] }[size]
      expect(
        pods()
          .map(({ name }) => name)
          .sort(),
      ).toEqual([...SERVICES, ...inside].sort())
    })

    it('keeps to the restricted security level, and the namespace insists on it', () => {
      const namespace = ofKind(rendered[size], 'Namespace')[0]!
      expect(namespace.metadata.labels).toMatchObject({ 'pod-security.kubernetes.io/enforce': 'restricted' })
      expect(
        ofKind(rendered[size], 'Deployment', 'Service', 'Secret').every(
          (m) => m.metadata.namespace === namespace.metadata.name,
        ),
      ).toBe(true)
      for (const { pod } of pods()) {
        expect(pod).toMatchObject({
          automountServiceAccountToken: false,
          securityContext: {
            runAsNonRoot: true,
            runAsUser: expect.any(Number) as unknown,
            seccompProfile: { type: 'RuntimeDefault' },
          },
        })
        expect(pod).not.toHaveProperty('hostNetwork')
        expect(JSON.stringify(pod.volumes ?? [])).not.toContain('hostPath')
      }
      for (const { securityContext } of containers()) {
        expect(securityContext).toEqual({
          allowPrivilegeEscalation: false,
          readOnlyRootFilesystem: true,
          capabilities: { drop: ['ALL'] },
        })
      }
    })

    it('names a version of every image, and what each container needs', () => {
      for (const { image, resources } of containers()) {
        expect(image).toMatch(/^[a-z/-]+:(RELEASE\.)?\d[\w.-]+$/)
        if (image.startsWith('haven/')) expect(image.split(':')[1]).toBe(version)
        expect(Object.keys(resources.requests).sort()).toEqual(['cpu', 'memory'])
        expect(resources.limits).toHaveProperty('memory')
      }
    })

    it('asks every container whether it started, lives and is ready; ours on the port of health, never through the door', () => {
      for (const { container } of pods()) {
        for (const probe of [container.startupProbe, container.livenessProbe, container.readinessProbe])
          expect(probe).toBeDefined()
      }
      for (const { name, container } of ours()) {
        const { startupProbe, livenessProbe, readinessProbe } = container
        const port = container.ports!.find((p) => p.name === 'http')!.containerPort
        expect([name, startupProbe!.httpGet, livenessProbe!.httpGet, readinessProbe!.httpGet]).toEqual([
          name,
          ...['/healthz', '/healthz', '/readyz'].map((path) => ({ path, port: 'http' })),
        ])
        if (name === 'proxy') expect(port).not.toBe(container.ports!.find((p) => p.name === 'door')!.containerPort)
        // Longer than a migration of the schema by another pod, and than a slow start.
        expect(startupProbe!.periodSeconds * startupProbe!.failureThreshold!).toBeGreaterThanOrEqual(60)
      }
    })

    it('replaces pods without a gap, and gives each the time that it needs to stop', () => {
      for (const { name, labels, pod, container, spec } of ours()) {
        const { strategy } = spec as { strategy: unknown }
        expect(strategy).toEqual(
          name === 'log-collector'
            ? { type: 'Recreate' }
            : { type: 'RollingUpdate', rollingUpdate: { maxUnavailable: 0, maxSurge: 1 } },
        )
        // run.ts: the drain (at most 30 s) and 5 s to close.
        expect(pod.terminationGracePeriodSeconds).toBeGreaterThan(container.lifecycle!.preStop.sleep.seconds + 35)
        expect(pod.topologySpreadConstraints!.map(({ topologyKey }) => topologyKey)).toEqual([
          'topology.kubernetes.io/zone',
          'kubernetes.io/hostname',
        ])
        for (const { maxSkew, whenUnsatisfiable, labelSelector, matchLabelKeys } of pod.topologySpreadConstraints!) {
          // Those of the same service and of the same version.
          expect([maxSkew, whenUnsatisfiable]).toEqual([1, 'ScheduleAnyway'])
          expect(selects(labelSelector, labels)).toBe(true)
          expect(matchLabelKeys).toEqual(['app.kubernetes.io/component', 'pod-template-hash'])
          expect(labels['app.kubernetes.io/component']).toBe(name)
        }
        expect(pod.enableServiceLinks).toBe(false)
      }
    })

    it('lets machines be emptied one pod after another', () => {
      const budgets = ofKind(rendered[size], 'PodDisruptionBudget').map(
        ({ spec }) => spec as { maxUnavailable: number; selector: object },
      )
      for (const { name, labels } of ours().filter(({ name }) => name !== 'log-collector')) {
        const [budget, ...more] = budgets.filter(({ selector }) => selects(selector, labels))
        expect([name, budget?.maxUnavailable, more]).toEqual([name, 1, []])
      }
    })

    it('migrates before each service that works on the database starts', () => {
      const migrating = ours().filter(({ pod }) =>
        pod.initContainers?.some(({ image }) => image.startsWith('haven/launcher:')),
      )
      expect(migrating.map(({ name }) => name).sort()).toEqual(WITH_DATABASE)
      for (const { pod } of migrating) {
        const names = pod.initContainers![0]!.env!.map(({ name }) => name)
        expect(names).toEqual(expect.arrayContaining(['DATABASE_URL', 'REDIS_URL', 'HAVEN_ENCRYPTION_KEY']))
      }
    })

    it('takes every secret from a Secret that is there, and gives each service only its own', () => {
      const secrets = new Map(ofKind(rendered[size], 'Secret').map(({ metadata, data }) => [metadata.name, data!]))
      const configs = new Set(ofKind(rendered[size], 'ConfigMap').map(({ metadata }) => metadata.name))
      for (const { name, env = [], envFrom = [] } of containers()) {
        for (const { configMapRef } of envFrom) expect(configs).toContain(configMapRef!.name)
        for (const { name: variable, value, valueFrom } of env) {
          if (valueFrom?.secretKeyRef)
            expect(secrets.get(valueFrom.secretKeyRef.name)).toHaveProperty(valueFrom.secretKeyRef.key)
          else
            expect([name, variable, value]).not.toEqual([
              name,
              expect.stringMatching(/SECRET|PASSWORD|KEY|_URL/),
              expect.anything(),
            ])
        }
      }
      const holders = (variable: string) =>
        ours()
          .filter(({ container }) => container.env!.some((e) => e.name === variable))
          .map(({ name }) => name)
          .sort()
      expect(holders('HAVEN_ENCRYPTION_KEY')).toEqual(WITH_DATABASE)
      expect(holders('REGISTRYCTL_SECRET')).toEqual(['jobservice', 'registryctl'])
      expect(holders('HAVEN_ADMIN_PASSWORD')).toEqual(['core'])
      expect(holders('S3_SECRET_KEY')).toEqual(size === 'dev' ? [] : ['core', 'proxy', 'registry', 'registryctl'])
    })

    it('R8: holds no password that is anybody’s default', () => {
      const plain = ofKind(rendered[size], 'Secret')
        .flatMap(({ data }) => Object.values(data!))
        .map((value) => Buffer.from(value, 'base64').toString())
        .concat(JSON.stringify(rendered[size].filter(({ kind }) => kind !== 'Secret')))
      expect(plain.join('\n')).not.toMatch(/Harbor12345|changeit|change-me|not-a-secure|minioadmin|password=/i)
    })

    it('reaches every port of a Service, by the number that the service listens on', () => {
      for (const service of ofKind(rendered[size], 'Service')) {
        const { selector, ports } = service.spec as {
          selector: Record<string, string>
          ports: { targetPort: string }[]
        }
        const [pod, ...more] = pods().filter(({ labels }) => selects({ matchLabels: selector }, labels))
        expect([service.metadata.name, more]).toEqual([service.metadata.name, []])
        for (const { targetPort } of ports) expect(pod!.container.ports!.map((p) => p.name)).toContain(targetPort)
      }
      const image = readFileSync(fileURLToPath(new URL('../../deploy/images/Dockerfile', import.meta.url)), 'utf8')
      for (const { name, container } of ours()) {
        const variable = name === 'proxy' ? 'PROXY_METRICS' : name.toUpperCase().replaceAll('-', '_')
        const [, port] = new RegExp(`${variable}_PORT=(\\d+)`).exec(image)!
        expect([name, container.ports!.find((p) => p.name === 'http')!.containerPort]).toEqual([name, Number(port)])
      }
    })
  })

  // threats.md, section 2: who may speak to whom.
  const arrows = [
    ...['registry:5000', 'token:5001', 'core:5002'].map((to) => `proxy > ${to}`),
    ...['proxy:9090', 'registry:5000', 'registryctl:5003', 'jobservice:5004'].map((to) => `core > ${to}`),
    'jobservice > registryctl:5003',
    ...['proxy:9090', 'registry:5000', 'core:5002', 'jobservice:5004', 'registryctl:5003'].map(
      (to) => `exporter > ${to}`,
    ),
    ...SERVICES.filter((name) => name !== 'log-collector').map((from) => `${from} > log-collector:5006`),
  ]
  const to = (server: string, ...from: string[]) => from.map((name) => `${name} > ${server}`)
  const toDatabase = to('postgres:5432', ...WITH_DATABASE)
  const toRedis = to('redis:6379', 'core', 'exporter', 'jobservice', 'registry', 'token')
  const storeUsers = ['core', 'proxy', 'registry', 'registryctl']

  it.each([
    ['small', [...arrows, ...toDatabase, ...toRedis, ...to('minio:9000', ...storeUsers)]],
    ['ha', arrows],
    ['dev', [...arrows, ...toDatabase, ...toRedis]],
  ] as const)('lets nothing pass within the namespace but the arrows of the threat model: %s', (size, expected) => {
    expect(unshut(rendered[size])).toEqual([])
    expect(arrowsWithin(rendered[size])).toEqual([...expected].sort())
  })

  it.each(['small', 'ha'] as const)(
    'brings clients of the external address to the door, bodies of any size: %s',
    (size) => {
      const [ingress] = ofKind(rendered[size], 'Ingress')
      const { tls, rules } = ingress!.spec as {
        tls: { hosts: string[] }[]
        rules: {
          host: string
          http: { paths: { path: string; backend: { service: { name: string; port: object } } }[] }
        }[]
      }
      const settings = ofKind(rendered[size], 'ConfigMap').find(({ data }) => data?.HAVEN_EXTERNAL_URL)!.data!
      const { host, protocol } = new URL(settings.HAVEN_EXTERNAL_URL!)
      expect([protocol, tls.map(({ hosts }) => hosts), rules.map((rule) => rule.host)]).toEqual([
        'https:',
        [[host]],
        [host],
      ])
      expect(rules[0]!.http.paths).toEqual([
        { path: '/', pathType: 'Prefix', backend: { service: { name: 'proxy', port: { name: 'door' } } } },
      ])
      expect(ingress!.metadata.annotations).toMatchObject({
        'nginx.ingress.kubernetes.io/proxy-body-size': '0',
        'nginx.ingress.kubernetes.io/proxy-request-buffering': 'off',
      })
    },
  )

  it('lets nobody in but at the door', () => {
    for (const size of sizes) expect(waysIn(rendered[size])).toEqual(['proxy:8080'])
  })

  it('A32: lets out to the Internet only who calls others, and nobody to private networks or a cloud’s metadata', () => {
    const names = (size: Size) =>
      workloads(rendered[size]).flatMap(({ name }) => [
        `${name} > kube-system:53+53`,
        `${name} > 169.254.20.10/32:53+53`,
      ])
    for (const size of ['small', 'dev'] as const) {
      const beyond = waysOut(rendered[size]).filter((way) => !names(size).includes(way))
      expect([...new Set(beyond.map((way) => way.split(' ')[0]))]).toEqual(['core', 'jobservice', 'registry', 'token'])
      for (const way of beyond) {
        const refused = way.includes('::/0')
          ? ['fc00::/7', 'fe80::/10']
          : ['10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16', '169.254.0.0/16', '100.64.0.0/10']
        for (const network of refused) expect(way).toContain(`except ${network}`)
      }
    }
    const toBackends = waysOut(rendered.ha).filter((way) => /:(5432|6379|443)$/.test(way))
    expect(toBackends).toEqual(
      [
        ...toDatabase.map((way) => way.replace(/ > .*/, ':5432')),
        ...toRedis.map((way) => way.replace(/ > .*/, ':6379')),
        ...storeUsers.map((name) => `${name}:443`),
      ]
        .map((way) => way.replace(':', ' > 0.0.0.0/0 except 169.254.0.0/16:'))
        .sort(),
    )
  })

  it('ha has two or more of each service but of the one that writes files and the one that counts', () => {
    const scaled = new Map(
      ofKind(rendered.ha, 'HorizontalPodAutoscaler').map(({ spec }) => {
        const { scaleTargetRef, minReplicas } = spec as { scaleTargetRef: { name: string }; minReplicas: number }
        return [scaleTargetRef.name, minReplicas]
      }),
    )
    for (const { name, spec } of workloads(rendered.ha)) {
      const { replicas } = spec as { replicas?: number }
      // Of two that set the number, the one undoes what the other does.
      expect([name, replicas ?? scaled.get(name), replicas !== undefined && scaled.has(name)]).toEqual([
        name,
        SINGLE.includes(name) ? 1 : 2,
        false,
      ])
    }
  })

  it('ha follows the load of those who answer clients, slowly downward', () => {
    const scalers = ofKind(rendered.ha, 'HorizontalPodAutoscaler').map(({ spec }) => {
      const { scaleTargetRef, minReplicas, maxReplicas, metrics, behavior } = spec as {
        scaleTargetRef: { kind: string; name: string }
        minReplicas: number
        maxReplicas: number
        metrics: { resource: { name: string; target: { type: string } } }[]
        behavior: { scaleDown: { stabilizationWindowSeconds: number; policies: object[] } }
      }
      expect(maxReplicas).toBeGreaterThan(minReplicas)
      // The share of what the container requests, which it has to do then.
      expect(metrics.map(({ resource }) => [resource.name, resource.target.type])).toEqual([['cpu', 'Utilization']])
      const { container } = workloads(rendered.ha).find(({ name }) => name === scaleTargetRef.name)!
      expect(container.resources.requests).toHaveProperty('cpu')
      expect(behavior.scaleDown.policies).toEqual([{ type: 'Pods', value: 1, periodSeconds: 120 }])
      return `${scaleTargetRef.kind} ${scaleTargetRef.name}`
    })
    expect(scalers.sort()).toEqual(['core', 'proxy', 'registry', 'token'].map((name) => `Deployment ${name}`))
    for (const size of ['small', 'dev'] as const) expect(ofKind(rendered[size], 'HorizontalPodAutoscaler')).toEqual([])
  })

  it('offers a LoadBalancer with TLS in the proxy, a route of the Gateway API, a ServiceMonitor and authorities as parts', () => {
    const base = readFileSync(at('overlays/dev/kustomization.yaml'), 'utf8')
    const parts = ['load-balancer', 'proxy-tls', 'gateway', 'service-monitor', 'authorities']
    const made = overlay(
      'parts',
      base.replace(
        'components:\n',
        ['components:', ...parts.map((part) => `  - ../../components/${part}`), ''].join('\n'),
      ),
    )
    makeSecrets(made)
    const manifests = render(made)
    const proxy = workloads(manifests).find(({ name }) => name === 'proxy')!
    expect(proxy.container.ports!.map(({ containerPort }) => containerPort).sort()).toEqual([8080, 8443, 9090])
    expect(proxy.container.volumeMounts!.map(({ mountPath }) => mountPath)).toEqual(
      expect.arrayContaining(['/etc/haven/tls', '/etc/haven/authorities']),
    )
    const [migrate] = workloads(manifests).find(({ name }) => name === 'core')!.pod.initContainers!
    expect([migrate!.env!.at(0)?.name, migrate!.volumeMounts!.map(({ name }) => name)]).toEqual([
      'NODE_EXTRA_CA_CERTS',
      ['authorities', 'tmp'],
    ])
    const door = ofKind(manifests, 'Service').find(({ metadata }) => metadata.name === 'proxy')!
    expect(door.spec).toMatchObject({
      type: 'LoadBalancer',
      ports: [
        { port: 443, targetPort: 'door-tls' },
        { port: 80, targetPort: 'door' },
      ],
    })
    const fromMonitoring = ' from {"namespaceSelector":{"matchLabels":{"kubernetes.io/metadata.name":"monitoring"}}}'
    expect(waysIn(manifests).filter((way) => !way.endsWith(fromMonitoring))).toEqual(['proxy:8080', 'proxy:8443'])
    expect(waysIn(manifests).filter((way) => way.endsWith(fromMonitoring))).toHaveLength(SERVICES.length)
    const [monitor] = ofKind(manifests, 'ServiceMonitor')
    const { selector, endpoints } = monitor!.spec as {
      selector: { matchLabels: Record<string, string> }
      endpoints: { port: string }[]
    }
    const scraped = ofKind(manifests, 'Service').filter(
      ({ metadata, spec }) =>
        selects(selector, metadata.labels ?? {}) &&
        (spec as { ports: { name: string }[] }).ports.some(({ name }) => name === endpoints[0]!.port),
    )
    expect(scraped.map(({ metadata }) => metadata.name).sort()).toEqual(
      SERVICES.map((name) => (name === 'proxy' ? 'proxy-health' : name)).sort(),
    )
    expect(ofKind(manifests, 'HTTPRoute')[0]!.spec).toMatchObject({
      rules: [{ backendRefs: [{ name: 'proxy', port: 80 }] }],
    })
  })

  it.each([
    [
      'everything inside',
      'externalURL: https://hub.acme.example\nexpose: { tls: { certSource: secret, secret: { secretName: hub } } }\nredis: { internal: { priorityClassName: high } }\npersistence: { persistentVolumeClaim: { registry: { accessMode: ReadWriteMany }, database: { size: 7Gi } } }\ncore: { replicas: 3, podLabels: { team: a } }',
    ],
    [
      'everything outside, with Secrets that are there',
      'externalURL: https://hub.acme.example\nexpose: { type: nodePort, tls: { certSource: secret, secret: { secretName: hub } } }\nexistingSecretAdminPassword: boss\ndatabase: { type: external, external: { host: 10.1.2.3, existingSecret: dbs } }\nredis: { type: external, external: { addr: "10.1.2.4:6380", existingSecret: rs } }\npersistence: { imageChartStorage: { type: s3, s3: { bucket: b, existingSecret: s3s, regionendpoint: "http://10.1.2.5:9000" } } }\ncaBundleSecretName: ca\ncaSecretName: offered\ncore: { configureUserSettings: "{}" }\nimagePullSecrets: [{ name: pull }]\nmetrics: { serviceMonitor: { enabled: true, interval: 10s } }',
    ],
  ])('renders what `haven import-helm-values` writes: %s', async (name, values) => {
    const file = at('values.yaml')
    writeFileSync(file, values)
    const out = at('overlays', `imported-${name.length}`)
    const imported = await runHaven(['import-helm-values', file, '--out', out, '--base', folder], process.env)
    expect(imported).toMatchObject({ code: 0, output: expect.stringContaining('next: make-secrets') as unknown })
    expect(imported.output).not.toContain('nobody here knows')
    makeSecrets(out)
    const manifests = render(out)
    const pods = workloads(manifests)
    if (name === 'everything inside') {
      expect(pods.find((pod) => pod.name === 'core')).toMatchObject({ labels: { team: 'a' }, spec: { replicas: 3 } })
      expect(pods.find((pod) => pod.name === 'core')!.pod).not.toHaveProperty('affinity')
      expect(pods.find((pod) => pod.name === 'redis')!.pod).toMatchObject({ priorityClassName: 'high' })
      expect(JSON.stringify(ofKind(manifests, 'StatefulSet'))).toContain('7Gi')
    } else {
      const core = pods.find((pod) => pod.name === 'core')!
      const variables = core.container.env!.map(({ name }) => name)
      // $(NAME) is replaced only where NAME stands before.
      expect(variables.indexOf('DATABASE_PASSWORD')).toBeLessThan(variables.indexOf('DATABASE_URL'))
      expect(core.container.env!.find((e) => e.name === 'DATABASE_URL')).toEqual({
        name: 'DATABASE_URL',
        value: expect.stringContaining('$(DATABASE_PASSWORD)') as unknown,
      })
      expect(core.container.env!.find((e) => e.name === 'HAVEN_ADMIN_PASSWORD')!.valueFrom!.secretKeyRef).toEqual({
        name: 'boss',
        key: 'HARBOR_ADMIN_PASSWORD',
      })
      expect(core.pod).toMatchObject({ imagePullSecrets: [{ name: 'pull' }] })
      expect(waysOut(manifests)).toEqual(
        expect.arrayContaining(['core > 10.1.2.3/32:5432', 'token > 10.1.2.4/32:6380', 'proxy > 10.1.2.5/32:9000']),
      )
      expect(waysIn(manifests)).toEqual(expect.arrayContaining(['proxy:8443']))
    }
  })
})

const noCluster = lacking(...CLUSTER_TOOLS)
const describeCluster = noCluster ? describe.skip : describe

describeCluster(titled('the overlays on a real API server', noCluster), () => {
  let cluster: Cluster
  // ha would be in the namespace of small.
  const placed = { small: 'overlays/small', ha: 'overlays/ha-beside', dev: 'overlays/dev' }
  const namespaces = { small: 'haven', ha: 'haven-ha', dev: 'haven-dev' }

  beforeAll(async () => {
    overlay('ha-beside', 'namespace: haven-ha\nresources: [../ha]\n')
    cluster = await startCluster()
    for (const size of sizes) {
      const namespace = at(`${size}-namespace.json`)
      writeFileSync(namespace, JSON.stringify(ofKind(render(at(placed[size])), 'Namespace')[0]))
      await cluster.kubectl('create', '-f', namespace)
    }
    // A pod is refused for want of its service account as long as the controllers have not made it.
    for (const namespace of Object.values(namespaces)) {
      await cluster.kubectl('-n', namespace, 'wait', '--for=create', '--timeout=60s', 'serviceaccount/default')
    }
  }, 120_000)
  afterAll(async () => cluster?.[Symbol.asyncDispose]())

  it.each(sizes)(
    'every object of %s is what the API server knows, and no pod is below the restricted level',
    async (size) => {
      const said = await cluster.kubectl('apply', '--server-side', '--dry-run=server', '-k', at(placed[size]))
      expect(said).not.toMatch(/warning/i)
      expect(said).toContain('deployment.apps/registry serverside-applied (server dry run)')
    },
  )

  it('refuses a pod below the restricted level in our namespace', async () => {
    const pod = {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: 'root' },
      spec: { containers: [{ name: 'c', image: 'x:1' }] },
    }
    writeFileSync(at('root.json'), JSON.stringify(pod))
    await expect(cluster.kubectl('-n', 'haven', 'apply', '-f', at('root.json'))).rejects.toThrow('violates PodSecurity')
  })

  it.each(sizes)(
    'kubectl apply -k of %s brings every workload up',
    async (size) => {
      const inNamespace = (...args: string[]) => cluster.kubectl('-n', namespaces[size], ...args)
      await cluster.kubectl('apply', '-k', at(placed[size]))
      const names = workloads(render(at(placed[size]))).map(({ kind, name }) => `${kind.toLowerCase()}/${name}`)
      // The autoscaler makes two of one before it knows any load.
      if (size === 'ha') {
        for (const name of ['proxy', 'registry', 'core', 'token'])
          await inNamespace('wait', `deployment/${name}`, '--for=jsonpath={.spec.replicas}=2', '--timeout=90s')
      }
      for (const name of names) await inNamespace('rollout', 'status', name, '--timeout=90s')
      const ready = JSON.parse(await inNamespace('get', 'deployment,statefulset', '-o', 'json')) as {
        items: { metadata: { name: string }; spec: { replicas: number }; status: { readyReplicas?: number } }[]
      }
      expect(ready.items.map(({ metadata, status }) => [metadata.name, status.readyReplicas ?? 0])).toEqual(
        ready.items.map(({ metadata }) => [metadata.name, size === 'ha' && !SINGLE.includes(metadata.name) ? 2 : 1]),
      )
    },
    240_000,
  )

  it('pods of one service are on machines of both zones', async () => {
    const { items } = JSON.parse(await cluster.kubectl('-n', 'haven-ha', 'get', 'pods', '-o', 'json')) as {
      items: { metadata: { labels: Record<string, string> }; spec: { nodeName: string } }[]
    }
    for (const name of SERVICES.filter((each) => !SINGLE.includes(each))) {
      const pods = items.filter(({ metadata }) => metadata.labels['app.kubernetes.io/component'] === name)
      expect([name, pods.map(({ spec }) => spec.nodeName).sort()]).toEqual([name, ['a', 'b']])
    }
  })

  it('an upgrade takes no pod away before the next is ready', async () => {
    await cluster.kubectl('-n', 'haven-ha', 'set', 'env', 'deployment/registry', 'LOG_LEVEL=debug')
    await cluster.kubectl('-n', 'haven-ha', 'rollout', 'status', 'deployment/registry', '--timeout=90s')
    const sets = JSON.parse(
      await cluster.kubectl(
        '-n',
        'haven-ha',
        'get',
        'events',
        '-o',
        'json',
        '--field-selector',
        'reason=ScalingReplicaSet,involvedObject.name=registry',
      ),
    ) as {
      items: { message: string; eventTime: string | null; firstTimestamp: string }[]
    }
    const steps = sets.items.map(({ message }) => message.replace(/ replica set \S+/, '').replace(/^Scaled /, ''))
    expect(steps).toEqual(expect.arrayContaining(['down from 2 to 1', 'down from 1 to 0']))
    expect(steps).not.toContain('down from 2 to 0')
  }, 120_000)
})
