import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { ADMIN_PASSWORD } from '@haven/testkit'
import { lacking, titled } from '@haven/testkit/tools'
import { goTool, type GoTool } from './go-tools.ts'
import { packChart } from './images.ts'
import { writeLayout } from './layout.ts'
import { startSite, type Site } from './site.ts'

const lack = lacking('helm', 'oras', 'cosign', 'crane', 'busybox')
const suite = lack ? describe.skip : describe
const plain = '--plain-http'

/** What the API tells of what real tools push. */
suite(titled('artifacts', lack), () => {
  let site: Site
  let oras: GoTool
  let cosign: GoTool
  let crane: GoTool

  beforeAll(async () => {
    site = await startSite({ shape: 'split', store: 'files' })
    oras = await goTool(site, 'oras')
    crane = await goTool(site, 'crane')
    cosign = await goTool(site, 'cosign')
    // No transparency log and no time stamps: both are services of the Internet.
    await cosign('signing-config', 'create', '--out', 'signing.json')
    writeFileSync(
      join(site.folder, 'cosign', 'root.json'),
      '{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}',
    )
  }, 180_000)
  afterAll(async () => site?.[Symbol.asyncDispose](), 60_000)

  async function api(method: string, path: string): Promise<{ status: number; text: string; json: unknown }> {
    const authorization = `Basic ${Buffer.from(`admin:${ADMIN_PASSWORD}`).toString('base64')}`
    const url = `${site.haven.url}/api/v2.0/projects/library/repositories/${path}`
    const response = await fetch(url, { method, headers: { authorization } })
    const text = await response.text()
    const isJson = response.headers.get('content-type')?.includes('json') && text !== ''
    return { status: response.status, text, json: isJson ? (JSON.parse(text) as unknown) : null }
  }

  it('a chart: its metadata and its values, and why it has no readme', async () => {
    const helm = await goTool(site, 'helm')
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
    expect((await api('GET', `${repository}/artifacts?with_accessory=true`)).json).toMatchObject([signed])
    const copied = await api('POST', `copies%252F${repository}/artifacts?from=library/${repository}:1`)
    expect([copied.status, copied.text]).toEqual([201, ''])
    expect((await api('GET', `copies%252F${repository}/artifacts/1?with_accessory=true`)).json).toMatchObject(signed)
    expect((await api('DELETE', `${repository}/artifacts/1`)).status).toBe(200)
    expect((await api('GET', `${repository}/artifacts?q=base%3D*`)).json).toEqual([])
    expect(await site.has(`library/${repository}`, `sha256-${digest.split(':').at(-1)}.sig`)).toBe(false)
    expect(await site.has(`library/copies/${repository}`, digest)).toBe(true)
  })
})
