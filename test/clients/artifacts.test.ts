import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { ADMIN_PASSWORD } from '@haven/testkit'
import { lacking, titled } from '@haven/testkit/tools'
import { goTool, type GoTool } from './go-tools.ts'
import { packChart } from './images.ts'
import { writeLayout } from './layout.ts'
import { startSite, type Manifest, type Site } from './site.ts'
import { must } from './tools.ts'

const lack = lacking('helm', 'oras', 'cosign', 'crane', 'syft', 'conftest', 'flatpak', 'gpg', 'busybox')
const suite = lack ? describe.skip : describe
const plain = '--plain-http'

/** What the API tells of what real tools push. */
suite(titled('artifacts', lack), () => {
  let site: Site
  let oras: GoTool
  let cosign: GoTool
  let crane: GoTool
  let syft: GoTool
  let helm: GoTool

  beforeAll(async () => {
    site = await startSite({ shape: 'split', store: 'files' })
    oras = await goTool(site, 'oras')
    crane = await goTool(site, 'crane')
    syft = await goTool(site, 'syft')
    helm = await goTool(site, 'helm')
    cosign = await goTool(site, 'cosign')
    // No transparency log and no time stamps: both are services of the Internet.
    await cosign('signing-config', 'create', '--out', 'signing.json')
    writeFileSync(
      join(site.folder, 'cosign', 'root.json'),
      '{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}',
    )
  }, 180_000)
  afterAll(async () => site?.[Symbol.asyncDispose](), 60_000)

  type Answer = { status: number; text: string; json: unknown; headers: Headers }

  async function get(path: string, method = 'GET'): Promise<Answer> {
    const authorization = `Basic ${Buffer.from(`admin:${ADMIN_PASSWORD}`).toString('base64')}`
    const response = await fetch(site.haven.url + path, { method, headers: { authorization } })
    const text = await response.text()
    const isJson = response.headers.get('content-type')?.includes('json') && text !== ''
    return {
      status: response.status,
      text,
      json: isJson ? (JSON.parse(text) as unknown) : null,
      headers: response.headers,
    }
  }

  const api = (method: string, path: string) => get(`/api/v2.0/projects/library/repositories/${path}`, method)

  /** The text of an addition, as Haven links to it. */
  async function addition(path: string, name: string): Promise<Answer> {
    const { additions } = await site.content(path)
    return get(additions.find((each) => each.name === name)!.href)
  }

  /** The artifacts that hang on another, by their digests. */
  async function referrers(repository: string, digest: string): Promise<string[]> {
    const { json } = await get(`/v2/library/${repository}/referrers/${digest}`)
    return (json as Manifest).manifests!.map((each) => each.digest)
  }

  it('a chart: its metadata and its values, and why it has no readme', async () => {
    const chart = await packChart(join(site.folder, 'charts'), 'demo', '1.2.3')
    await helm('push', plain, chart, `oci://${site.host}/library/charts`)
    const at = 'charts%252Fdemo/artifacts/1.2.3'
    expect((await api('GET', at)).json).toMatchObject({
      type: 'CHART',
      media_type: 'application/vnd.cncf.helm.config.v1+json',
      extra_attrs: { name: 'demo', version: '1.2.3', apiVersion: 'v2', type: 'application' },
    })
    expect((await api('GET', `${at}/additions/values.yaml`)).text).toBe('replicas: 1\n')
    expect((await api('GET', `${at}/additions/dependencies`)).text).toBe('null')
    expect((await api('GET', `${at}/additions/readme.md`)).status).toBe(404)
  })

  it('A94: a signed chart of helm with a readme that runs scripts: its dependencies, its provenance, its readme as text', async () => {
    const folder = join(site.folder, 'signed')
    const keys = join(folder, 'keys')
    mkdirSync(keys, { recursive: true, mode: 0o700 })
    await packChart(folder, 'base', '1.0.0')
    await packChart(folder, 'full', '2.0.0')
    const README = '# full\n<script>alert(1)</script>\n[x](javascript:alert(1))\n'
    writeFileSync(join(folder, 'full/README.md'), README)
    writeFileSync(
      join(folder, 'full/Chart.yaml'),
      'apiVersion: v2\nname: full\nversion: 2.0.0\ndependencies:\n  - {name: base, version: 1.0.0, repository: "file://../base"}\n',
    )
    const gpg = (...args: string[]) =>
      must('gpg', ['--homedir', keys, '--batch', '--pinentry-mode', 'loopback', '--passphrase', '', ...args])
    await gpg('--quick-generate-key', 'signer@example.test', 'rsa2048', 'sign', 'never')
    await gpg('-o', join(folder, 'secret.gpg'), '--export-secret-keys')
    await must('gpgconf', ['--homedir', keys, '--kill', 'gpg-agent'])
    const signing = ['--sign', '--key', 'signer@example.test', '--keyring', join(folder, 'secret.gpg')]
    await helm('package', ...signing, '--dependency-update', '-d', folder, join(folder, 'full'))
    await helm('push', plain, join(folder, 'full-2.0.0.tgz'), `oci://${site.host}/library/charts`)

    const at = 'charts%252Ffull/artifacts/2.0.0'
    expect(await site.content(at)).toMatchObject({
      format: 'helm-chart',
      attributes: { name: 'full', version: '2.0.0' },
    })
    expect((await api('GET', `${at}/additions/dependencies`)).json).toMatchObject([{ name: 'base', version: '1.0.0' }])
    expect((await addition(at, 'provenance')).text).toBe(readFileSync(join(folder, 'full-2.0.0.tgz.prov'), 'utf8'))
    const readme = await api('GET', `${at}/additions/readme.md`)
    expect(readme.text).toBe(README)
    expect(readme.headers.get('content-type')).toBe('text/markdown; charset=utf-8')
    expect(readme.headers.get('x-content-type-options')).toBe('nosniff')
  })

  it('an application that flatpak built and exported: an image, of which its labels say what it is', async () => {
    const cwd = join(site.folder, 'flatpak')
    for (const part of ['files', 'export']) mkdirSync(join(cwd, 'app', part), { recursive: true })
    writeFileSync(join(cwd, 'app/files/hello'), 'hello')
    writeFileSync(
      join(cwd, 'app/metadata'),
      '[Application]\nname=org.example.Hello\nruntime=org.example.Platform/x86_64/1\nsdk=org.example.Sdk/x86_64/1\ncommand=hello\n',
    )
    const flatpak = (...args: string[]) =>
      must('flatpak', args, { cwd, env: { HOME: cwd, XDG_DATA_HOME: join(cwd, 'data') } })
    await flatpak('build-export', '--disable-sandbox', '--arch=x86_64', 'repo', 'app', 'stable')
    await flatpak('build-bundle', '--oci', '--arch=x86_64', 'repo', 'layout', 'org.example.Hello', 'stable')
    const { manifests } = JSON.parse(readFileSync(join(cwd, 'layout/index.json'), 'utf8')) as Manifest
    const from = `${join(cwd, 'layout')}@${manifests![0]!.digest}`
    await oras('copy', '--from-oci-layout', from, '--to-plain-http', `${site.host}/library/flatpak:1`)
    expect((await site.content('flatpak/artifacts/1')).format).toBe('flatpak')
    expect((await api('GET', 'flatpak/artifacts/1')).json).toMatchObject({
      type: 'IMAGE',
      extra_attrs: { config: { Labels: { 'org.flatpak.ref': 'app/org.example.Hello/x86_64/stable' } } },
    })
  })

  it.each([
    ['spdx-json', 'application/spdx+json', 'SPDX', '"spdxVersion"'],
    ['cyclonedx-json', 'application/vnd.cyclonedx+json', 'CycloneDX', '"bomFormat"'],
  ])('a bill of materials that syft wrote as %s and oras attached', async (format, type, standard, text) => {
    const cwd = join(site.folder, format)
    const layout = join(cwd, 'image')
    const { digest } = await writeLayout(layout)
    await crane('push', layout, `${site.host}/library/${format}:1`)
    writeFileSync(join(cwd, 'sbom.json'), await syft('-q', `oci-dir:${layout}`, '-o', format))
    const subject = `${site.host}/library/${format}@${digest}`
    await oras.with({ cwd }, 'attach', plain, subject, '--artifact-type', type, `sbom.json:${type}`)
    const [sbom] = await referrers(format, digest)
    const at = `${format}/artifacts/${sbom}`
    expect(await site.content(at)).toMatchObject({ format: 'sbom', attributes: { standard } })
    expect((await addition(at, 'sbom')).text).toContain(text)
  })

  it('policies of Open Policy Agent that conftest pushed: each file of them', async () => {
    const conftest = await goTool(site, 'conftest')
    const auth = Buffer.from(`admin:${ADMIN_PASSWORD}`).toString('base64')
    writeFileSync(join(site.folder, 'conftest/config.json'), JSON.stringify({ auths: { [site.host]: { auth } } }))
    const cwd = join(site.folder, 'opa')
    mkdirSync(join(cwd, 'policy'), { recursive: true })
    const POLICY = 'package main\n\ndeny contains "no" if input.kind == "Secret"\n'
    writeFileSync(join(cwd, 'policy/base.rego'), POLICY)
    writeFileSync(join(cwd, 'policy/limits.yaml'), 'limits: {replicas: 3}\n')
    await conftest.with({ cwd }, 'push', '--tls=false', `${site.host}/library/opa:1`)
    // Its config is of no type that is anybody's: what it is is told by its layers.
    expect((await api('GET', 'opa/artifacts/1')).json).toMatchObject({ type: 'UNKNOWN' })
    const { format, files } = await site.content('opa/artifacts/1')
    expect([format, files.length]).toEqual(['opa-bundle', 2])
    const texts = await Promise.all(files.map(async ({ href }) => (await get(href)).text))
    expect(texts).toContain(POLICY)
  })

  // None of these tools can be installed here; each is pushed by oras, as its specification has it.
  it.each<[what: string, repository: string, word: string, format: string, args: string[]]>([
    [
      'a SIF of Apptainer',
      'sif',
      'SIF',
      'sif',
      ['--config=empty.json:application/vnd.sylabs.sif.config.v1+json', 'file:application/vnd.sylabs.sif.layer.v1.sif'],
    ],
    [
      'a module of wasm-to-oci',
      'wasm',
      'WASM',
      'wasm',
      ['--config=empty.json:application/vnd.wasm.config.v1+json', 'file:application/vnd.wasm.content.layer.v1+wasm'],
    ],
    [
      'an image of crun for WebAssembly',
      'wasm-image',
      'WASM',
      'wasm',
      [
        '--config=empty.json:application/vnd.oci.image.config.v1+json',
        '--annotation=module.wasm.image/variant=compat',
        'file:application/vnd.oci.image.layer.v1.tar',
      ],
    ],
    [
      'an image of Nydus',
      'nydus',
      'IMAGE',
      'nydus',
      [
        '--config=empty.json:application/vnd.oci.image.config.v1+json',
        'file:application/vnd.oci.image.layer.nydus.blob.v1',
      ],
    ],
    [
      'a ModelKit of KitOps',
      'modelkit',
      'MODELKIT',
      'modelkit',
      [
        '--config=empty.json:application/vnd.kitops.modelkit.config.v1+json',
        'file:application/vnd.kitops.modelkit.model.v1.tar+gzip',
      ],
    ],
    [
      'a model of modctl',
      'model',
      'CNAI',
      'model',
      [
        '--artifact-type=application/vnd.cncf.model.manifest.v1+json',
        '--config=empty.json:application/vnd.cncf.model.config.v1+json',
        'file:application/vnd.cncf.model.weight.v1.raw',
      ],
    ],
    [
      'a signature of Notation',
      'notation',
      'UNKNOWN',
      'notation-signature',
      ['--artifact-type=application/vnd.cncf.notary.signature', 'file:application/jose+json'],
    ],
    [
      'a statement of OpenVEX',
      'openvex',
      'UNKNOWN',
      'vex',
      ['--artifact-type=application/vnd.openvex+json', 'file:application/vnd.openvex+json'],
    ],
    [
      'a statement of CSAF',
      'csaf',
      'UNKNOWN',
      'vex',
      ['--artifact-type=application/csaf+json', 'file:application/csaf+json'],
    ],
  ])('%s, to its specification', async (_, repository, type, format, args) => {
    const cwd = join(site.folder, repository)
    mkdirSync(cwd)
    writeFileSync(join(cwd, 'empty.json'), '{}')
    writeFileSync(join(cwd, 'file'), repository)
    await oras.with({ cwd }, 'push', plain, `${site.host}/library/${repository}:1`, ...args)
    expect((await api('GET', `${repository}/artifacts/1`)).json).toMatchObject({ type })
    const told = await site.content(`${repository}/artifacts/1`)
    expect(told).toMatchObject({ format, files: [{ title: 'file', sizeBytes: repository.length }] })
    expect((await get(told.files[0]!.href)).text).toBe(repository)
  })

  it('a bundle of CNAB, to its specification', async () => {
    const cwd = join(site.folder, 'cnab')
    mkdirSync(cwd)
    writeFileSync(join(cwd, 'bundle.json'), '{"name":"bundle","version":"1.0.0"}')
    const name = `${site.host}/library/cnab`
    await oras.with({ cwd }, 'push', plain, `${name}:c`, '--config=bundle.json:application/vnd.cnab.config.v1+json')
    const { digest, mediaType } = await site.manifest('library/cnab', 'c')
    const index = {
      schemaVersion: 2,
      mediaType: 'application/vnd.oci.image.index.v1+json',
      manifests: [{ mediaType, digest, size: 1, annotations: { 'io.cnab.manifest.type': 'config' } }],
      annotations: { 'org.opencontainers.artifactType': 'application/vnd.cnab.manifest.v1' },
    }
    writeFileSync(join(cwd, 'index.json'), JSON.stringify(index))
    await oras('manifest', 'push', plain, `${name}:1`, join(cwd, 'index.json'))
    expect((await api('GET', 'cnab/artifacts/1')).json).toMatchObject({
      type: 'CNAB',
      extra_attrs: { name: 'bundle', version: '1.0.0' },
    })
  })

  it('a type of somebody with an icon of its own, that oras pushed', async () => {
    const cwd = join(site.folder, 'own')
    mkdirSync(cwd)
    writeFileSync(join(cwd, 'config.json'), '{"accuracy":0.9,"owner":"me"}')
    const onePixel = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=='
    writeFileSync(join(cwd, 'icon.png'), Buffer.from(onePixel, 'base64'))
    const annotations = {
      $config: { 'io.goharbor.artifact.v1alpha1.skip-list': 'owner' },
      'icon.png': { 'io.goharbor.artifact.v1alpha1.icon': '' },
    }
    writeFileSync(join(cwd, 'annotations.json'), JSON.stringify(annotations))
    const own = ['--config=config.json:application/vnd.acme.model.config.v1+json', '--annotation-file=annotations.json']
    await oras.with({ cwd }, 'push', plain, `${site.host}/library/own:1`, ...own, 'icon.png:image/png')
    const { json } = await api('GET', 'own/artifacts/1')
    expect(json).toMatchObject({ type: 'MODEL', extra_attrs: { accuracy: 0.9 } })
    expect((json as { extra_attrs: object }).extra_attrs).not.toHaveProperty('owner')
    const icon = (await get(`/api/v2.0/icons/${(json as { icon: string }).icon}`)).json as { content: string }
    expect(Buffer.from(icon.content, 'base64').toString('latin1', 1, 4)).toBe('PNG')
    expect((await site.manifest('library/own', '1')).body.layers![0]!.digest).toBe((json as { icon: string }).icon)
  })

  it('statements that cosign signed, in bundles and beside the image', async () => {
    await cosign('generate-key-pair', '--output-key-prefix', 'attest')
    const layout = join(site.folder, 'attested')
    const { digest } = await writeLayout(layout)
    await crane('push', layout, `${site.host}/library/attested:1`)
    writeFileSync(join(site.folder, 'cosign/predicate.json'), '{"made":"by hand"}')
    const statement = ['--type', 'https://example.test/how', '--predicate', 'predicate.json']
    const attest = (...more: string[]) =>
      cosign('attest', '-y', '--key', 'attest.key', ...more, ...statement, `${site.host}/library/attested@${digest}`)
    await attest('--signing-config', 'signing.json', '--trusted-root', 'root.json')
    await attest('--use-signing-config=false', '--new-bundle-format=false', '--tlog-upload=false')
    const [bundle] = await referrers('attested', digest)
    expect(await site.content(`attested/artifacts/${bundle}`)).toMatchObject({
      format: 'sigstore-bundle',
      attributes: { predicateType: 'https://example.test/how' },
    })
    expect((await addition(`attested/artifacts/${bundle}`, 'statement')).text).toContain('dsseEnvelope')
    const beside = `attested/artifacts/sha256-${digest.split(':').at(-1)}.att`
    expect(await site.content(beside)).toMatchObject({
      format: 'in-toto',
      attributes: { predicateTypes: ['https://example.test/how'] },
    })
    expect((await addition(beside, 'statement')).text).toContain('payload')
  })

  it('an index: its platforms, and of each what runs there', async () => {
    const layout = join(site.folder, 'index')
    await writeLayout(layout, { architectures: ['amd64', 'arm64'] })
    await oras('copy', '--from-oci-layout', `${layout}:1`, '--to-plain-http', `${site.host}/library/multi:1`)
    const { json } = await api('GET', 'multi/artifacts/1')
    const { references } = json as { references: { child_digest: string; platform: { architecture: string } }[] }
    expect(references.map(({ platform }) => platform.architecture)).toEqual(['amd64', 'arm64'])
    const arm = await api('GET', `multi/artifacts/${references[1]?.child_digest}`)
    expect(arm.json).toMatchObject({ type: 'IMAGE', extra_attrs: { architecture: 'arm64', os: 'linux' } })
  })

  it('files that oras pushed: their type and annotations', async () => {
    const cwd = join(site.folder, 'files')
    mkdirSync(cwd)
    writeFileSync(join(cwd, 'notes.txt'), 'what was changed')
    const name = `${site.host}/library/notes:1`
    const type = ['--artifact-type', 'application/vnd.test.notes', '--annotation', 'a=b']
    await oras.with({ cwd }, 'push', plain, name, ...type, 'notes.txt')
    const { json } = await api('GET', 'notes/artifacts/1')
    expect(json).toMatchObject({
      type: 'UNKNOWN',
      artifact_type: 'application/vnd.test.notes',
      annotations: { a: 'b' },
    })
    expect(json).not.toHaveProperty('extra_attrs')
  })

  it.each([
    ['bundles that refer to the image', ['--signing-config', 'signing.json', '--trusted-root', 'root.json']],
    ['tags beside it', ['--use-signing-config=false', '--new-bundle-format=false', '--tlog-upload=false']],
  ])('signatures that cosign made in %s: accessories, copied and deleted with it', async (title, signing) => {
    const repository = title.startsWith('tags') ? 'by-tag' : 'by-bundle'
    await cosign('generate-key-pair', '--output-key-prefix', repository)
    const layout = join(site.folder, repository)
    const { digest } = await writeLayout(layout)
    await crane('push', layout, `${site.host}/library/${repository}:1`)
    await cosign('sign', '-y', '--key', `${repository}.key`, ...signing, `${site.host}/library/${repository}@${digest}`)

    const signed = { digest, accessories: [{ type: 'signature.cosign', subject_artifact_digest: digest }] }
    const { json } = await api('GET', `${repository}/artifacts?with_accessory=true`)
    expect(json).toMatchObject([signed])
    const [signature] = (json as { accessories: { digest: string }[] }[])[0]!.accessories
    const format = title.startsWith('tags') ? 'cosign-signature' : 'sigstore-bundle'
    expect((await site.content(`${repository}/artifacts/${signature!.digest}`)).format).toBe(format)
    const copied = await api('POST', `copies%252F${repository}/artifacts?from=library/${repository}:1`)
    expect([copied.status, copied.text]).toEqual([201, ''])
    expect((await api('GET', `copies%252F${repository}/artifacts/1?with_accessory=true`)).json).toMatchObject(signed)
    expect((await api('DELETE', `${repository}/artifacts/1`)).status).toBe(200)
    expect((await api('GET', `${repository}/artifacts?q=base%3D*`)).json).toEqual([])
    expect(await site.has(`library/${repository}`, `sha256-${digest.split(':').at(-1)}.sig`)).toBe(false)
    expect(await site.has(`library/copies/${repository}`, digest)).toBe(true)
  })
})
