import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { ADMIN_PASSWORD, startHaven, type HavenInstallation } from '@haven/testkit'
import { findTool, lacking, titled } from '@haven/testkit/tools'
import { startVersityGw, type VersityGw } from '@haven/testkit/versitygw'
import { startDocker, type DockerEngine } from './docker-engine.ts'
import { buildImage, packChart } from './images.ts'
import { PASSWORD, privateProject } from './people.ts'
import { must, run } from './tools.ts'

const ADMIN = `admin:${ADMIN_PASSWORD}`
const noDocker = lacking('dockerd', 'docker', 'busybox')
const noPodman = lacking('podman', 'skopeo')
const noGoTools = lacking('crane', 'oras', 'helm')
const noS3 = lacking('versitygw')

const itWith = (lack: string | null) => (lack ? it.skip : it)

describe.each([
  ['single', 'files'],
  ['split', 'files'],
  ['single', 's3'],
  ['split', 's3'],
] as const)('%s on %s', (shape, store) => {
  const lackOfStore = store === 's3' ? noS3 : null
  const suite = lackOfStore ? describe.skip : describe

  suite(titled('real clients', lackOfStore), () => {
    let haven: HavenInstallation
    let s3: VersityGw | null = null
    let engine: DockerEngine
    let folder: string

    beforeAll(async () => {
      folder = mkdtempSync(join(tmpdir(), 'haven-clients-'))
      s3 = store === 's3' ? await startVersityGw() : null
      const env: Record<string, string> = s3
        ? {
            STORAGE_DRIVER: 's3',
            S3_ENDPOINT: s3.endpoint,
            S3_ACCESS_KEY: s3.accessKey,
            S3_SECRET_KEY: s3.secretKey,
            S3_BUCKET: 'haven',
          }
        : {}
      haven = await startHaven({ shape, env })
      await privateProject(haven.url, 'team', ['developer', 'guest'])
      if (!noDocker) engine = await startDocker()
    }, 180_000)

    afterAll(async () => {
      await engine?.[Symbol.asyncDispose]()
      await haven?.[Symbol.asyncDispose]()
      await s3?.[Symbol.asyncDispose]()
      rmSync(folder, { recursive: true, force: true })
    }, 120_000)

    itWith(noDocker)(titled('docker: login, push, rmi, pull, run', noDocker), async () => {
      const image = `${haven.host}/library/hello:1`
      await buildImage(engine, image, 'hello from haven')
      const wrong = await engine.docker(['login', haven.host, '-u', 'admin', '--password-stdin'], {
        input: 'Wrong-pass1',
      })
      expect(wrong.code).not.toBe(0)
      expect(wrong.output).toMatch(/unauthorized/i)
      await engine.mustDocker(['login', haven.host, '-u', 'admin', '--password-stdin'], { input: ADMIN_PASSWORD })
      await engine.mustDocker(['push', image])
      await engine.mustDocker(['rmi', image])
      await engine.mustDocker(['pull', image])
      const said = await engine.mustDocker(['run', '--rm', '--network', 'host', image])
      expect(said.trim()).toBe('hello from haven')
      await engine.mustDocker(['logout', haven.host])
    })

    itWith(noDocker)(titled('docker: anybody pulls from a public project, nobody pushes to it', noDocker), async () => {
      const image = `${haven.host}/library/hello:1`
      await engine.docker(['rmi', image])
      await engine.mustDocker(['pull', image])
      const refused = await engine.docker(['push', image])
      expect(refused.code).not.toBe(0)
      expect(refused.output).toMatch(/denied|unauthorized/)
    })

    itWith(noDocker)(titled('docker: a private project by role', noDocker), async () => {
      const image = `${haven.host}/team/hello:1`
      await buildImage(engine, image, 'hello from the team')
      const as = async (who: string, args: string[]) => {
        await engine.mustDocker(['login', haven.host, '-u', `team-${who}`, '--password-stdin'], { input: PASSWORD })
        const outcome = await engine.docker(args)
        await engine.mustDocker(['logout', haven.host])
        return outcome
      }
      const guestPush = await as('guest', ['push', image])
      expect(guestPush.code).not.toBe(0)
      expect(guestPush.output).toContain('denied: requested access to the resource is denied')
      expect((await as('developer', ['push', image])).output).toContain('digest: sha256:')
      expect((await as('guest', ['pull', image])).code).toBe(0)
      const stranger = await as('stranger', ['pull', image])
      expect(stranger.code).not.toBe(0)
      expect(stranger.output).toMatch(
        /pull access denied for .*team\/hello, repository does not exist or may require 'docker login'|unauthorized/,
      )
      const anonymous = await engine.docker(['pull', image])
      expect(anonymous.code).not.toBe(0)
      expect(anonymous.output).toMatch(/pull access denied|unauthorized/)
    })

    itWith(noPodman)(titled('podman and skopeo: push, copy, pull', noPodman), async () => {
      const podman = podmanIn(folder)
      await must('podman', ['import', '-q', await emptyTar(folder), 'localhost/empty:1'], podman)
      const image = `${haven.host}/library/podman:1`
      await must('podman', ['push', '-q', '--tls-verify=false', '--creds', ADMIN, 'localhost/empty:1', image], podman)
      await must('podman', ['pull', '-q', '--tls-verify=false', image], podman)
      const tls = ['--src-tls-verify=false', '--dest-tls-verify=false']
      const copy = `docker://${haven.host}/library/copies/skopeo:1`
      await must('skopeo', ['copy', ...tls, '--dest-creds', ADMIN, `docker://${image}`, copy])
      const [from, to] = await Promise.all(
        [`docker://${image}`, copy].map((name) => must('skopeo', ['inspect', '--raw', '--tls-verify=false', name])),
      )
      expect(to).toBe(from)
      await must('podman', ['rmi', '-f', 'localhost/empty:1', image], podman)
    })

    itWith(noGoTools)(titled('crane: append, digest, tags, copy, delete', noGoTools), async () => {
      const crane = findTool('crane')!
      const env = { DOCKER_CONFIG: join(folder, 'crane') }
      await must(crane, ['auth', 'login', haven.host, '-u', 'admin', '-p', ADMIN_PASSWORD], { env })
      const image = `${haven.host}/library/crane:1`
      await must(crane, ['append', '--oci-empty-base', '-f', await emptyTar(folder), '-t', image], { env })
      const digest = (await must(crane, ['digest', image], { env })).trim()
      expect(digest).toMatch(/^sha256:[0-9a-f]{64}$/)
      await must(crane, ['copy', image, `${haven.host}/library/crane-copy:2`], { env })
      expect((await must(crane, ['ls', `${haven.host}/library/crane-copy`], { env })).trim()).toBe('2')
      await must(crane, ['delete', `${haven.host}/library/crane-copy@${digest}`], { env })
      expect((await run(crane, ['digest', `${haven.host}/library/crane-copy:2`], { env })).code).not.toBe(0)
      expect((await must(crane, ['digest', image], { env })).trim()).toBe(digest)
    })

    itWith(noGoTools)(titled('oras: push, attach, discover, pull', noGoTools), async () => {
      const oras = findTool('oras')!
      const env = { DOCKER_CONFIG: join(folder, 'oras') }
      const cwd = join(folder, 'oras-files')
      mkdirSync(cwd)
      writeFileSync(join(cwd, 'notes.txt'), 'what was changed')
      writeFileSync(join(cwd, 'sbom.json'), '{}')
      const login = ['login', '--plain-http', '-u', 'admin', '--password-stdin', haven.host]
      await must(oras, login, { env, input: ADMIN_PASSWORD })
      const name = `${haven.host}/library/oras:1`
      await must(oras, ['push', '--plain-http', name, '--artifact-type', 'application/vnd.test.notes', 'notes.txt'], {
        env,
        cwd,
      })
      await must(oras, ['attach', '--plain-http', name, '--artifact-type', 'application/vnd.test.sbom', 'sbom.json'], {
        env,
        cwd,
      })
      const found = JSON.parse(await must(oras, ['discover', '--plain-http', '--format', 'json', name], { env })) as {
        referrers?: { artifactType: string }[]
        manifests?: { artifactType: string }[]
      }
      expect((found.referrers ?? found.manifests)?.map((r) => r.artifactType)).toEqual(['application/vnd.test.sbom'])
      await must(oras, ['pull', '--plain-http', '-o', 'out', name], { env, cwd })
      expect(readFileSync(join(cwd, 'out/notes.txt'), 'utf8')).toBe('what was changed')
      rmSync(cwd, { recursive: true })
    })

    itWith(noGoTools)(titled('helm: login, push, pull', noGoTools), async () => {
      const helm = findTool('helm')!
      const home = join(folder, 'helm')
      mkdirSync(home, { recursive: true })
      const env = { HELM_CONFIG_HOME: home, HELM_CACHE_HOME: home, HELM_DATA_HOME: home, DOCKER_CONFIG: home }
      const login = ['registry', 'login', haven.host, '--plain-http', '-u', 'admin', '--password-stdin']
      await must(helm, login, { env, input: ADMIN_PASSWORD })
      const chart = await packChart(home, 'demo', '1.2.3+build.5')
      await must(helm, ['push', '--plain-http', chart, `oci://${haven.host}/library/charts`], { env })
      const out = join(home, 'out')
      mkdirSync(out)
      const pull = [
        'pull',
        '--plain-http',
        `oci://${haven.host}/library/charts/demo`,
        '--version',
        '1.2.3+build.5',
        '-d',
        out,
      ]
      await must(helm, pull, { env })
      expect(readFileSync(join(out, 'demo-1.2.3+build.5.tgz'))).toEqual(readFileSync(chart))
    })
  })
})

/** Settings under which podman runs without systemd and without rights to raise limits. */
function podmanIn(folder: string) {
  const storage = join(folder, 'storage.conf')
  const containers = join(folder, 'containers.conf')
  const podmanFolder = join(folder, 'podman')
  writeFileSync(
    storage,
    `[storage]\ndriver = "vfs"\ngraphroot = "${podmanFolder}/graph"\nrunroot = "${podmanFolder}/run"\n`,
  )
  writeFileSync(containers, '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\nruntime = "runc"\n')
  return { env: { CONTAINERS_STORAGE_CONF: storage, CONTAINERS_CONF: containers } }
}

/** A tar with one random file: a layer that no other test has pushed. */
async function emptyTar(folder: string): Promise<string> {
  const name = `layer-${crypto.randomUUID()}`
  writeFileSync(join(folder, name), crypto.getRandomValues(new Uint8Array(1000)))
  await must('tar', ['-cf', `${name}.tar`, name], { cwd: folder })
  return join(folder, `${name}.tar`)
}
