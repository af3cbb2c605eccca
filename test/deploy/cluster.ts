import { execFile, spawn, type ChildProcess } from 'node:child_process'
import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { get } from 'node:https'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { freePort } from '@haven/testkit'
import { findTool } from '@haven/testkit/tools'

const run = promisify(execFile)

/** What a cluster is made of, for `lacking`. */
export const CLUSTER_TOOLS = ['etcd', 'kube-apiserver', 'kube-controller-manager', 'kube-scheduler', 'kwok', 'kubectl']

/** A Kubernetes without machines: a real API server with its controllers and scheduler; kwok says of each pod that it runs and is ready. */
export type Cluster = AsyncDisposable & {
  /** @returns what kubectl wrote to stdout and stderr. @throws with both. */
  kubectl(...args: string[]): Promise<string>
}

/** @throws with the end of the log of whatever does not start. */
export async function startCluster(): Promise<Cluster> {
  const folder = mkdtempSync(join(tmpdir(), 'haven-cluster-'))
  const started: { name: string; child: ChildProcess; exited: Promise<unknown> }[] = []
  const start = (name: string, args: string[]) => {
    const log = openSync(join(folder, `${name}.log`), 'w')
    const child = spawn(findTool(name)!, args, { stdio: ['ignore', log, log], cwd: folder })
    started.push({ name, child, exited: new Promise((resolve) => child.once('exit', resolve)) })
  }
  const stop = async () => {
    // The API server hangs when etcd is gone before it.
    for (const { child, exited } of started.toReversed()) {
      if (child.exitCode === null) child.kill('SIGTERM')
      const hard = setTimeout(() => child.kill('SIGKILL'), 5_000)
      await exited
      clearTimeout(hard)
    }
    rmSync(folder, { recursive: true, force: true })
  }
  const untilReady = async (name: string, ready: () => Promise<boolean>) => {
    for (let tries = 0; tries < 600; tries++) {
      if (await ready()) return
      const ended = started.find(({ child }) => child.exitCode !== null)
      if (ended)
        throw new Error(`${ended.name} ended:\n${readFileSync(join(folder, `${ended.name}.log`), 'utf8').slice(-2000)}`)
      await new Promise((resolve) => setTimeout(resolve, 100))
    }
    throw new Error(`${name} is not ready:\n${readFileSync(join(folder, `${name}.log`), 'utf8').slice(-2000)}`)
  }

  try {
    const [client, peer, api, controllers, scheduler] = await Promise.all(Array.from({ length: 5 }, freePort))
    const at = (port: number | undefined) => `http://127.0.0.1:${port}`
    start('etcd', [
      ...[
        '--data-dir',
        'etcd',
        '--unsafe-no-fsync',
        '--listen-client-urls',
        at(client),
        '--advertise-client-urls',
        at(client),
      ],
      ...[
        '--listen-peer-urls',
        at(peer),
        '--initial-advertise-peer-urls',
        at(peer),
        '--initial-cluster',
        `default=${at(peer)}`,
      ],
    ])

    const token = randomBytes(16).toString('hex')
    const keys = generateKeyPairSync('rsa', {
      modulusLength: 2048,
      publicKeyEncoding: { type: 'spki', format: 'pem' },
      privateKeyEncoding: { type: 'pkcs1', format: 'pem' },
    })
    const file = (name: string, text: string) => {
      writeFileSync(join(folder, name), text, { mode: 0o600 })
      return join(folder, name)
    }
    const signing = file('accounts.key', keys.privateKey)
    start('kube-apiserver', [
      `--etcd-servers=${at(client)}`,
      '--bind-address=127.0.0.1',
      `--secure-port=${api}`,
      '--advertise-address=127.0.0.1',
      '--endpoint-reconciler-type=none',
      '--cert-dir=certificates',
      '--service-account-issuer=https://kubernetes.test',
      `--service-account-key-file=${file('accounts.pub', keys.publicKey)}`,
      `--service-account-signing-key-file=${signing}`,
      `--token-auth-file=${file('tokens.csv', `${token},admin,admin,system:masters\n`)}`,
      '--authorization-mode=RBAC',
      '--service-cluster-ip-range=10.96.0.0/24',
    ])
    const kubeconfig = file(
      'kubeconfig',
      JSON.stringify({
        apiVersion: 'v1',
        kind: 'Config',
        clusters: [{ name: 'c', cluster: { server: `https://127.0.0.1:${api}`, 'insecure-skip-tls-verify': true } }],
        users: [{ name: 'u', user: { token } }],
        contexts: [{ name: 'x', context: { cluster: 'c', user: 'u' } }],
        'current-context': 'x',
      }),
    )
    await untilReady('kube-apiserver', () => answers(`https://127.0.0.1:${api}/readyz`, token))

    const common = [
      `--kubeconfig=${kubeconfig}`,
      '--leader-elect=false',
      '--bind-address=127.0.0.1',
      '--cert-dir=certificates',
    ]
    start('kube-controller-manager', [
      ...common,
      `--secure-port=${controllers}`,
      `--service-account-private-key-file=${signing}`,
      '--use-service-account-credentials=true',
    ])
    start('kube-scheduler', [...common, `--secure-port=${scheduler}`])
    const stages = join(dirname(findTool('kwok')!), 'kwok-stages.yaml')
    start('kwok', [
      `--kubeconfig=${kubeconfig}`,
      '--manage-all-nodes',
      '--node-ip=127.0.0.1',
      '--cidr=10.200.0.0/24',
      '-c',
      stages,
    ])

    const kubectl = async (...args: string[]) => {
      const { stdout, stderr } = await run(findTool('kubectl')!, ['--kubeconfig', kubeconfig, ...args], {
        maxBuffer: 2 ** 26,
      })
      return stdout + stderr
    }
    // Two machines in two zones, and volumes that nobody has to provide.
    const objects = file(
      'objects.json',
      JSON.stringify({
        apiVersion: 'v1',
        kind: 'List',
        items: [...['a', 'b'].map(node), ...Array.from({ length: 12 }, volume)],
      }),
    )
    await kubectl('apply', '-f', objects)
    return { kubectl, [Symbol.asyncDispose]: stop }
  } catch (error) {
    await stop()
    throw error
  }
}

const room = { cpu: '64', memory: '256Gi', pods: '250' }

const node = (name: string) => ({
  apiVersion: 'v1',
  kind: 'Node',
  metadata: {
    name,
    annotations: { 'kwok.x-k8s.io/node': 'fake' },
    labels: { 'kubernetes.io/hostname': name, 'topology.kubernetes.io/zone': `zone-${name}` },
  },
  status: { allocatable: room, capacity: room },
})

const volume = (_: unknown, i: number) => ({
  apiVersion: 'v1',
  kind: 'PersistentVolume',
  metadata: { name: `volume-${i}` },
  spec: { capacity: { storage: '100Gi' }, accessModes: ['ReadWriteOnce'], hostPath: { path: `/volumes/${i}` } },
})

/** Its certificate is its own. */
function answers(url: string, token: string): Promise<boolean> {
  return new Promise((resolve) => {
    get(url, { rejectUnauthorized: false, headers: { Authorization: `Bearer ${token}` } }, (answer) => {
      answer.resume()
      resolve(answer.statusCode === 200)
    }).on('error', () => resolve(false))
  })
}
