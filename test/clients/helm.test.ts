import { existsSync, mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { lacking, titled } from '@haven/testkit/tools'
import { goTool, type GoTool } from './go-tools.ts'
import { packChart } from './images.ts'
import { startSite, type Site } from './site.ts'
import { must } from './tools.ts'

const lack = lacking('helm', 'helm3', 'oras', 'gpg')
const suite = lack ? describe.skip : describe
const plain = '--plain-http'

suite(titled('helm', lack), () => {
  let site: Site
  let oras: GoTool

  beforeAll(async () => {
    site = await startSite({ shape: 'single', store: 'files' })
    oras = await goTool(site, 'oras')
  }, 180_000)
  afterAll(async () => site?.[Symbol.asyncDispose](), 60_000)

  describe.each([
    ['helm3', '3'],
    ['helm', '4'],
  ])('%s', (name, version) => {
    let helm: GoTool
    let home: string
    let chart: string
    let repository: string

    beforeAll(async () => {
      helm = await goTool(site, name)
      home = join(site.folder, name)
      chart = await packChart(home, 'demo', '1.2.3+build.5')
      repository = `library/${name}/demo`
    }, 60_000)

    const into = (folder: string) => {
      mkdirSync(join(home, folder))
      return join(home, folder)
    }

    it('is the version it should be', async () => {
      expect(await helm('version', '--short')).toMatch(new RegExp(`^v${version}\\.`))
    })

    it('pushes a chart and pulls it by version and by digest', async () => {
      await helm('push', plain, chart, `oci://${site.host}/library/${name}`)
      const { digest, body } = await site.manifest(repository, '1.2.3_build.5')
      expect(body.config?.mediaType).toBe('application/vnd.cncf.helm.config.v1+json')
      const out = into('by-version')
      await helm('pull', plain, `oci://${site.host}/${repository}`, '--version', '1.2.3+build.5', '-d', out)
      expect(readFileSync(join(out, 'demo-1.2.3+build.5.tgz'))).toEqual(readFileSync(chart))
      expect(await helm('show', 'chart', plain, `oci://${site.host}/${repository}@${digest}`)).toContain('name: demo')
      const rendered = await helm(
        'template',
        plain,
        'release',
        `oci://${site.host}/${repository}`,
        '--version',
        '1.2.3+build.5',
      )
      expect(rendered).toContain('name: release')
    })

    it('copies a chart to another repository by a mount', async () => {
      const copy = `library/copies/${name}`
      const [from, to] = [`${site.host}/${repository}:1.2.3_build.5`, `${site.host}/${copy}:1.2.3_build.5`]
      await oras('copy', '--from-plain-http', from, '--to-plain-http', to)
      await site.mounted(copy, 2)
      expect(await helm('show', 'chart', plain, `oci://${site.host}/${copy}`, '--version', '1.2.3+build.5')).toContain(
        'name: demo',
      )
    })

    it('finds the newest version of a range among many tags', async () => {
      await helm('push', plain, await packChart(home, 'demo', '1.9.0'), `oci://${site.host}/library/${name}`)
      await helm('push', plain, await packChart(home, 'demo', '2.0.0'), `oci://${site.host}/library/${name}`)
      await site.addTags(repository, '1.9.0', 1100)
      expect(await helm('show', 'chart', plain, `oci://${site.host}/${repository}`, '--version', '^1.0.0')).toContain(
        'version: 1.9.0',
      )
      expect(await helm('show', 'chart', plain, `oci://${site.host}/${repository}`)).toContain('version: 2.0.0')
    })

    it('signs a chart, pushes its provenance, and verifies what it pulls', async () => {
      const keys = join(home, 'gnupg')
      mkdirSync(keys, { mode: 0o700 })
      const gpg = (...args: string[]) =>
        must('gpg', ['--homedir', keys, '--batch', '--pinentry-mode', 'loopback', '--passphrase', '', ...args])
      await gpg('--quick-generate-key', 'chart-signer@example.test', 'rsa2048', 'sign', 'never')
      await gpg('-o', join(home, 'secret.gpg'), '--export-secret-keys')
      await gpg('-o', join(home, 'public.gpg'), '--export')
      await must('gpgconf', ['--homedir', keys, '--kill', 'gpg-agent'])
      const signing = ['--sign', '--key', 'chart-signer@example.test', '--keyring', join(home, 'secret.gpg')]
      await packChart(home, 'signed', '1.0.0')
      const packed = into('packed')
      await helm('package', ...signing, '-d', packed, join(home, 'signed'))
      await helm('push', plain, join(packed, 'signed-1.0.0.tgz'), `oci://${site.host}/library/${name}`)
      const signed = await site.manifest(`library/${name}/signed`, '1.0.0')
      expect(signed.body.layers?.map((layer) => layer.mediaType)).toContain(
        'application/vnd.cncf.helm.chart.provenance.v1.prov',
      )
      const pull = (keyring: string, out: string) =>
        helm.try(
          'pull',
          plain,
          '--verify',
          '--keyring',
          keyring,
          `oci://${site.host}/library/${name}/signed`,
          '--version',
          '1.0.0',
          '-d',
          out,
        )
      const verified = await pull(join(home, 'public.gpg'), into('verified'))
      expect(verified.output).toContain('chart-signer@example.test')
      expect(verified.code).toBe(0)
      expect(existsSync(join(home, 'verified/signed-1.0.0.tgz'))).toBe(true)
    })

    it('a deleted version is gone', async () => {
      const { digest } = await site.manifest(repository, '2.0.0')
      await oras('manifest', 'delete', plain, '-f', `${site.host}/${repository}@${digest}`)
      const gone = await helm.try('show', 'chart', plain, `oci://${site.host}/${repository}`, '--version', '2.0.0')
      expect(gone.code).not.toBe(0)
      expect(gone.output).toMatch(/not found/)
    })
  })
})
