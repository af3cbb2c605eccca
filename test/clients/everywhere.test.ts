import { mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { ADMIN_PASSWORD } from '@haven/testkit'
import { lacking, titled } from '@haven/testkit/tools'
import { startContainerd } from './containerd.ts'
import { containersTools, type ContainersTools } from './containers-tools.ts'
import { engine29Tools, startDocker20, startDocker29 } from './docker-engine.ts'
import { goTool } from './go-tools.ts'
import { buildImage, packChart } from './images.ts'
import { writeLayout } from './layout.ts'
import { startSite, type Cell, type Site } from './site.ts'

const cells: Cell[] = [
  { shape: 'single', store: 'files' },
  { shape: 'split', store: 'files' },
  { shape: 'single', store: 's3' },
  { shape: 'split', store: 's3' },
]
const ADMIN = `admin:${ADMIN_PASSWORD}`
const plain = '--plain-http'

/** What each client does in each cell: push, and pull what was pushed. Their whole rounds are in files of their own. */
describe.each(cells)('every client pushes and pulls: $shape on $store', (cell) => {
  const lackOfAll = lacking('busybox', ...(cell.store === 's3' ? ['versitygw'] : []))
  let site: Site
  let tools: ContainersTools
  let layout: string
  let digest: string

  beforeAll(async () => {
    if (lackOfAll) return
    site = await startSite(cell)
    tools = containersTools(site.folder)
    layout = join(site.folder, 'layout')
    digest = (await writeLayout(layout)).digest
  }, 180_000)
  afterAll(async () => site?.[Symbol.asyncDispose](), 60_000)

  /** By skopeo, which else may take layers that the registry has from podman, compressed otherwise. */
  const push = (repository: string) =>
    tools.skopeo(
      ...['copy', '-q', '--preserve-digests', '--dest-tls-verify=false', '--dest-creds', ADMIN],
      ...[`oci:${layout}:1`, `docker://${site.host}/library/${repository}:1`],
    )

  const test = (title: string, needs: string[], body: () => Promise<void>) => {
    const lack = lackOfAll ?? lacking(...needs)
    return lack ? it.skip(titled(title, lack), () => undefined) : it(title, body)
  }

  test('docker 20.10', ['dockerd', 'docker'], async () => {
    await using engine = await startDocker20()
    const image = `${site.host}/library/docker:1`
    await buildImage(engine, image, 'hello')
    await engine.mustDocker(['login', site.host, '-u', 'admin', '--password-stdin'], { input: ADMIN_PASSWORD })
    await engine.mustDocker(['push', image])
    await engine.mustDocker(['rmi', image])
    await engine.mustDocker(['pull', image])
    expect((await engine.mustDocker(['run', '--rm', '--network', 'host', image])).trim()).toBe('hello')
  })

  test('docker 29', engine29Tools, async () => {
    await using engine = await startDocker29()
    const image = `${site.host}/library/engine:1`
    await buildImage(engine, image, 'hello')
    await engine.mustDocker(['login', site.host, '-u', 'admin', '--password-stdin'], { input: ADMIN_PASSWORD })
    await engine.mustDocker(['push', image])
    await engine.mustDocker(['rmi', image])
    await engine.mustDocker(['pull', image])
    expect((await engine.mustDocker(['run', '--rm', '--network', 'host', image])).trim()).toBe('hello')
  })

  test('podman', ['podman'], async () => {
    const image = `${site.host}/library/podman:1`
    const id = (await tools.podman('pull', '-q', `oci:${layout}:1`)).trim()
    await tools.podman('push', '-q', '--tls-verify=false', '--creds', ADMIN, id, image)
    await tools.podman('rmi', '-f', id)
    await tools.podman('pull', '-q', '--tls-verify=false', image)
    expect((await tools.podman('image', 'inspect', '--format', '{{.Id}}', image)).trim()).toBe(id)
  })

  test('buildah', ['buildah'], async () => {
    const image = `${site.host}/library/buildah:1`
    const id = (await tools.buildah('pull', '-q', `oci:${layout}:1`)).trim()
    await tools.buildah('push', '-q', '--tls-verify=false', '--creds', ADMIN, id, `docker://${image}`)
    await tools.buildah('rmi', '-f', id)
    expect((await tools.buildah('pull', '-q', '--tls-verify=false', image)).trim()).toBe(id)
  })

  test('skopeo', ['skopeo'], async () => {
    const image = `docker://${site.host}/library/skopeo:1`
    await push('skopeo')
    await tools.skopeo('copy', '-q', '--src-tls-verify=false', image, `oci:${join(site.folder, 'skopeo')}:1`)
    expect(manifestIn(join(site.folder, 'skopeo'), digest)).toEqual(manifestIn(layout, digest))
  })

  test('ctr', ['containerd', 'ctr', 'skopeo'], async () => {
    await using containerd = await startContainerd(site.folder)
    const image = `${site.host}/library/ctr:1`
    const archive = join(site.folder, 'ctr.tar')
    await tools.skopeo('copy', '-q', `oci:${layout}:1`, `oci-archive:${archive}:1`)
    await containerd.ctr('images', 'import', '--base-name', `${site.host}/library/ctr`, archive)
    await containerd.ctr('images', 'push', plain, '--user', ADMIN, image)
    await containerd.ctr('images', 'rm', '--sync', image)
    await containerd.ctr('images', 'pull', plain, image)
    expect(await containerd.ctr('images', 'ls', `name==${image}`)).toContain(digest)
  })

  test('crane', ['crane'], async () => {
    const crane = await goTool(site, 'crane')
    const image = `${site.host}/library/crane:1`
    await crane('push', layout, image)
    await crane('pull', '--format', 'oci', image, join(site.folder, 'crane-pulled'))
    expect(manifestIn(join(site.folder, 'crane-pulled'), digest)).toEqual(manifestIn(layout, digest))
  })

  test('regctl', ['regctl'], async () => {
    const regctl = await goTool(site, 'regctl')
    const image = `${site.host}/library/regctl:1`
    await regctl('image', 'copy', `ocidir://${layout}:1`, image)
    await regctl('image', 'copy', image, `ocidir://${join(site.folder, 'regctl-pulled')}:1`)
    expect(manifestIn(join(site.folder, 'regctl-pulled'), digest)).toEqual(manifestIn(layout, digest))
  })

  test('oras', ['oras'], async () => {
    const oras = await goTool(site, 'oras')
    const image = `${site.host}/library/oras:1`
    await oras('copy', '--from-oci-layout', `${layout}:1`, '--to-plain-http', image)
    await oras('copy', '--from-plain-http', image, '--to-oci-layout', `${join(site.folder, 'oras-pulled')}:1`)
    expect(manifestIn(join(site.folder, 'oras-pulled'), digest)).toEqual(manifestIn(layout, digest))
  })

  for (const name of ['helm3', 'helm'])
    test(name, [name], async () => {
      const helm = await goTool(site, name)
      const home = join(site.folder, name)
      const chart = await packChart(home, 'demo', '1.2.3')
      await helm('push', plain, chart, `oci://${site.host}/library/${name}`)
      mkdirSync(join(home, 'out'))
      await helm(
        'pull',
        plain,
        `oci://${site.host}/library/${name}/demo`,
        '--version',
        '1.2.3',
        '-d',
        join(home, 'out'),
      )
      expect(readFileSync(join(home, 'out/demo-1.2.3.tgz'))).toEqual(readFileSync(chart))
    })

  test('cosign', ['cosign', 'skopeo'], async () => {
    const cosign = await goTool(site, 'cosign')
    await push('signed')
    const image = `${site.host}/library/signed@${digest}`
    await cosign('generate-key-pair')
    const old = ['--use-signing-config=false', '--new-bundle-format=false', '--tlog-upload=false']
    await cosign('sign', '-y', '--key', 'cosign.key', ...old, image)
    await cosign('verify', '--key', 'cosign.pub', '--new-bundle-format=false', '--insecure-ignore-tlog=true', image)
  })

  test('syft and trivy', ['syft', 'trivy', 'skopeo'], async () => {
    const [syft, trivy] = [await goTool(site, 'syft'), await goTool(site, 'trivy')]
    const image = `${site.host}/library/scanned:1`
    await push('scanned')
    expect(await syft('scan', '-q', '-o', 'cyclonedx-json', `registry:${image}`)).toContain('CycloneDX')
    const quiet = ['--offline-scan', '--skip-version-check', '--disable-telemetry', '-q', '--image-src', 'remote']
    expect(await trivy('image', ...quiet, '--format', 'cyclonedx', image)).toContain('CycloneDX')
  })
})

const manifestIn = (layout: string, digest: string) =>
  readFileSync(join(layout, 'blobs/sha256', digest.slice('sha256:'.length)))
