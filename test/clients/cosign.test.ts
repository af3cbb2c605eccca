import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { lacking, titled } from '@haven/testkit/tools'
import { goTool, type GoTool } from './go-tools.ts'
import { writeLayout } from './layout.ts'
import { startSite, type Site } from './site.ts'

const lack = lacking('cosign', 'crane', 'oras', 'busybox')
const suite = lack ? describe.skip : describe
const noLog = '--insecure-ignore-tlog=true'

suite(titled('cosign', lack), () => {
  let site: Site
  let cosign: GoTool
  let crane: GoTool
  let oras: GoTool

  beforeAll(async () => {
    site = await startSite({ shape: 'split', store: 'files' })
    cosign = await goTool(site, 'cosign')
    crane = await goTool(site, 'crane')
    oras = await goTool(site, 'oras')
    await cosign('generate-key-pair')
    await cosign('generate-key-pair', '--output-key-prefix', 'other')
    const home = join(site.folder, 'cosign')
    // No transparency log and no time stamps: both are services of the Internet.
    await cosign('signing-config', 'create', '--out', 'signing.json')
    writeFileSync(join(home, 'root.json'), '{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}')
    writeFileSync(join(home, 'sbom.json'), '{"bomFormat":"CycloneDX","specVersion":"1.6","version":1,"components":[]}')
  }, 180_000)
  afterAll(async () => site?.[Symbol.asyncDispose](), 60_000)

  /** An image of its own for each test. */
  const push = async (repository: string) => {
    const layout = join(site.folder, crypto.randomUUID())
    const { digest } = await writeLayout(layout)
    await crane('push', layout, `${site.host}/${repository}:1`)
    return `${site.host}/${repository}@${digest}`
  }

  describe.each([
    [
      'bundles that refer to the image',
      'bundle',
      ['--signing-config', 'signing.json', '--trusted-root', 'root.json'],
      ['--trusted-root', 'root.json', noLog],
    ],
    [
      'tags beside the image',
      'tags',
      ['--use-signing-config=false', '--new-bundle-format=false', '--tlog-upload=false'],
      ['--new-bundle-format=false', noLog],
    ],
  ])('%s', (_, kind, signing, verifying) => {
    it('signs, verifies with the right key only, attests, copies with the image, and deletes', async () => {
      const image = await push(`library/${kind}`)
      const hex = image.split(':').at(-1)!
      const verify = (name: string, key = 'cosign.pub') => cosign.try('verify', '--key', key, ...verifying, name)
      expect((await verify(image)).code).not.toBe(0)
      await cosign('sign', '-y', '--key', 'cosign.key', ...signing, image)
      expect((await verify(image)).output).toContain('The signatures were verified against the specified public key')
      expect((await verify(`${site.host}/library/${kind}:1`)).code).toBe(0)
      expect((await verify(image, 'other.pub')).code).not.toBe(0)

      const attestation = ['--type', 'cyclonedx', '--predicate', 'sbom.json']
      await cosign('attest', '-y', '--key', 'cosign.key', ...signing, ...attestation, image)
      const attested = ['verify-attestation', '--key', 'cosign.pub', '--type', 'cyclonedx', ...verifying]
      expect((await cosign.try(...attested, image)).code).toBe(0)
      expect(await cosign('tree', image)).toContain(image)

      // The one by the referrers API, the other by tags whose names cosign makes.
      expect(await site.has(`library/${kind}`, `sha256-${hex}.sig`)).toBe(kind === 'tags')
      expect(await site.has(`library/${kind}`, `sha256-${hex}.att`)).toBe(kind === 'tags')

      const copy = `${site.host}/library/copies/${kind}:1`
      // cosign itself copies what lies in tags, and for what refers to an image names oras.
      if (kind === 'tags') await cosign('copy', image, copy)
      else await oras('copy', '-r', '--from-plain-http', image, '--to-plain-http', copy)
      expect((await verify(copy)).code).toBe(0)
      expect((await cosign.try(...attested, copy)).code).toBe(0)
      await site.mounted(`library/copies/${kind}`, 2)
      expect((await verify(image)).code).toBe(0)
    })
  })

  it('a signature in tags may be signed again, and cosign takes it away', async () => {
    const image = await push('library/again')
    const old = ['--use-signing-config=false', '--new-bundle-format=false', '--tlog-upload=false']
    const tag = `sha256-${image.split(':').at(-1)!}.sig`
    await cosign('sign', '-y', '--key', 'cosign.key', ...old, image)
    const first = await site.manifest('library/again', tag)
    await cosign('sign', '-y', '--key', 'other.key', ...old, image)
    expect((await site.manifest('library/again', tag)).body.layers).toHaveLength(2)
    expect(first.body.layers).toHaveLength(1)
    for (const key of ['cosign.pub', 'other.pub'])
      expect((await cosign.try('verify', '--key', key, '--new-bundle-format=false', noLog, image)).code).toBe(0)
    await cosign('clean', '-f', '--type', 'signature', image)
    expect(await site.has('library/again', tag)).toBe(false)
    expect(await site.has('library/again', '1')).toBe(true)
  })
})
