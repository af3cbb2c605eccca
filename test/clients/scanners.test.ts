import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { findTool, lacking, titled } from '@haven/testkit/tools'
import { goTool, type GoTool } from './go-tools.ts'
import { writeLayout } from './layout.ts'
import { startSite, type Site } from './site.ts'
import { must } from './tools.ts'

const lack = lacking('syft', 'trivy', 'trivy-db', 'crane', 'oras', 'busybox', 'versitygw')
const suite = lack ? describe.skip : describe

type CycloneDx = { bomFormat: string; components: { name: string; version?: string }[] }

suite(titled('syft and trivy', lack), () => {
  let site: Site
  let crane: GoTool
  let oras: GoTool
  let syft: GoTool
  let trivy: GoTool
  let image: string
  let digest: string

  beforeAll(async () => {
    site = await startSite({ shape: 'single', store: 's3' })
    crane = await goTool(site, 'crane')
    oras = await goTool(site, 'oras')
    syft = await goTool(site, 'syft')
    trivy = await goTool(site, 'trivy')
    image = `${site.host}/library/vulnerable:1`
    const layout = join(site.folder, 'vulnerable')
    digest = (await writeLayout(layout, { fill: installVulnerable })).digest
    await crane('push', layout, image)
  }, 180_000)
  afterAll(async () => site?.[Symbol.asyncDispose](), 60_000)

  const names = (bom: string) => {
    const { bomFormat, components } = JSON.parse(bom) as CycloneDx
    expect(bomFormat).toBe('CycloneDX')
    return components.map(({ name }) => name)
  }

  it('syft: lists the packages of an image by tag and by digest', async () => {
    for (const name of [image, `${site.host}/library/vulnerable@${digest}`])
      expect(names(await syft('scan', '-q', '-o', 'cyclonedx-json', `registry:${name}`))).toEqual(
        expect.arrayContaining(['openssl', 'lodash']),
      )
  })

  it('syft: its SBOM is attached to the image, found and read back', async () => {
    const home = join(site.folder, 'syft')
    await syft('scan', '-q', '-o', 'spdx-json=sbom.spdx.json', `registry:${image}`)
    const attach = [
      'attach',
      '--plain-http',
      image,
      '--artifact-type',
      'application/spdx+json',
      'sbom.spdx.json:application/spdx+json',
    ]
    await oras.with({ cwd: home }, ...attach)
    const found = JSON.parse(await oras('discover', '--plain-http', '--format', 'json', image)) as {
      referrers: { digest: string }[]
    }
    expect(found.referrers).toHaveLength(1)
    const out = join(home, 'out')
    await oras('pull', '--plain-http', '-o', out, `${site.host}/library/vulnerable@${found.referrers[0]!.digest}`)
    await must('cmp', [join(home, 'sbom.spdx.json'), join(out, 'sbom.spdx.json')])
  })

  const quiet = ['--offline-scan', '--skip-version-check', '--disable-telemetry', '--no-progress', '-q']

  it('trivy: makes an SBOM of an image without a database', async () => {
    const bom = await trivy('image', ...quiet, '--image-src', 'remote', '--format', 'cyclonedx', image)
    expect(names(bom)).toEqual(expect.arrayContaining(['openssl', 'lodash']))
  })

  it('trivy: takes its database from this registry and finds what it knows, by tag and by digest', async () => {
    const home = join(site.folder, 'database')
    mkdirSync(home)
    await must(findTool('trivy-db')!, [home])
    await must('tar', ['-C', home, '-czf', join(home, 'db.tar.gz'), 'trivy.db', 'metadata.json'])
    const database = `${site.host}/library/trivy-db:2`
    await oras.with(
      { cwd: home },
      ...['push', '--plain-http', database, '--config', '/dev/null:application/vnd.aquasec.trivy.config.v1+json'],
      'db.tar.gz:application/vnd.aquasec.trivy.db.layer.v1.tar+gzip',
    )
    const from = ['--db-repository', database, '--skip-java-db-update', '--scanners', 'vuln', '--image-src', 'remote']
    for (const name of [image, `${site.host}/library/vulnerable@${digest}`]) {
      const report = JSON.parse(await trivy('image', ...quiet, ...from, '--format', 'json', name)) as {
        Results: { Vulnerabilities?: { VulnerabilityID: string; Severity: string }[] }[]
      }
      const found = report.Results.flatMap((result) => result.Vulnerabilities ?? [])
      expect(found.map((one) => `${one.VulnerabilityID} ${one.Severity}`).toSorted()).toEqual([
        'CVE-2099-0001 CRITICAL',
        'CVE-2099-0002 HIGH',
      ])
    }
  })

  it('trivy: reads the SBOM that refers to the image instead of its layers', async () => {
    const plain = [
      'image',
      ...quiet,
      '--skip-db-update',
      '--skip-java-db-update',
      '--scanners',
      'vuln',
      '--image-src',
      'remote',
    ]
    const before = await site.accesses('', ({ url }) => url.startsWith('/v2/library/vulnerable/referrers/'), 0)
    await trivy(...plain, '--sbom-sources', 'oci', '--format', 'json', image)
    await site.accesses(
      'referrers',
      ({ url }) => url.startsWith('/v2/library/vulnerable/referrers/'),
      before.length + 1,
    )
  })
})

/** What scanners read of an Alpine with an old OpenSSL and a program with an old lodash. */
function installVulnerable(root: string) {
  const file = (path: string, text: string) => {
    mkdirSync(join(root, path, '..'), { recursive: true })
    writeFileSync(join(root, path), text)
  }
  file('etc/os-release', 'ID=alpine\nNAME="Alpine Linux"\nVERSION_ID=3.21.0\nPRETTY_NAME="Alpine Linux v3.21"\n')
  file('etc/alpine-release', '3.21.0\n')
  file('lib/apk/db/installed', 'P:openssl\nV:3.3.2-r0\nA:x86_64\nL:Apache-2.0\no:openssl\n\n')
  file('app/node_modules/lodash/package.json', '{"name":"lodash","version":"4.17.20","license":"MIT"}')
}
