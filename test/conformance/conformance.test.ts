import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { ADMIN_PASSWORD, startHaven, type HavenInstallation } from '@haven/testkit'
import { startVersityGw, type VersityGw } from '@haven/testkit/versitygw'
import { lacking, titled } from '@haven/testkit/tools'
import { runSuite, startDistribution, type Outcome, type Version } from './suite.ts'

const VERSIONS: Version[] = ['1.1', 'dev']
/** Fewer than in any run of a registry that lets the suite in: against Distribution it counts 852 and 994. */
const LEAST_TESTS = { '1.1': 840, dev: 960 }
// Of the version before, it is tried as well: a test that is left out counts as skipped.
const ALSO = ['BLOBS_UPLOAD_CANCEL']

const lines: string[] = []
const note = (who: string, version: Version, { counted: { total, passed, failed, skipped } }: Outcome) =>
  lines.push(`${who}, ${version}: ${passed} of ${total} passed, ${failed} failed, ${skipped} skipped`)
afterAll(() => void process.stdout.write(`OCI conformance\n${lines.map((line) => `  ${line}\n`).join('')}`))

const installations = [
  { store: 'files', shape: 'single' },
  { store: 'files', shape: 'split' },
  { store: 's3', shape: 'single' },
  { store: 's3', shape: 'split' },
] as const

describe.each(installations)('the OCI conformance suite on $store, $shape', ({ store, shape }) => {
  const lack = store === 's3' ? lacking('conformance', 'versitygw') : lacking('conformance')
  if (lack) {
    it.skip(titled('fails nothing and skips nothing', lack), () => undefined)
    return
  }
  let haven: HavenInstallation
  let s3: VersityGw | null = null
  beforeAll(async () => {
    if (store === 's3') s3 = await startVersityGw()
    haven = await startHaven({
      shape,
      env: s3 ? { ...s3.settings } : {},
    })
    const made = await fetch(`${haven.url}/api/v2.0/projects`, {
      method: 'POST',
      headers: {
        'Content-Type': 'application/json',
        Authorization: `Basic ${Buffer.from(`admin:${ADMIN_PASSWORD}`).toString('base64')}`,
      },
      body: JSON.stringify({ project_name: 'conformance' }),
    })
    expect(made.status).toBe(201)
  }, 180_000)
  afterAll(async () => {
    await haven?.[Symbol.asyncDispose]()
    await s3?.[Symbol.asyncDispose]()
  }, 60_000)

  const cells = VERSIONS.flatMap((version) => [true, false].map((cacheTokens) => ({ version, cacheTokens })))
  it.each(cells)(
    'fails nothing and skips nothing in $version, keeping tokens: $cacheTokens',
    async ({ version, cacheTokens }) => {
      const repositories = [`conformance/${version}/one`, `conformance/${version}/two`] as const
      const user = { name: 'admin', password: ADMIN_PASSWORD }
      const outcome = await runSuite({ host: haven.host, user, repositories }, version, { cacheTokens, also: ALSO })
      note(
        `Haven on ${store}, ${shape}, ${cacheTokens ? 'keeping tokens' : 'a token for each request'}`,
        version,
        outcome,
      )
      const { failed, skipped, counted, disabled, ended } = outcome
      expect({ failed, skipped, ended: failed.length > 0 ? ended : '' }).toEqual({ failed: [], skipped: [], ended: '' })
      expect(counted).toMatchObject({ passed: counted.total, failed: 0, skipped: 0 })
      expect(counted.total).toBeGreaterThan(LEAST_TESTS[version])
      // Images whose layers were never pushed: we refuse them, as the specification lets us.
      if (version === 'dev') expect(disabled).toEqual(['Sparse Manifests'])
    },
    180_000,
  )
})

const peerLacks = lacking('conformance', 'registry')
const peer = peerLacks ? describe.skip : describe
peer(titled('Distribution 3.1, for comparison', peerLacks), () => {
  it.each(VERSIONS)(
    'is run by the same suite in %s',
    async (version) => {
      await using distribution = await startDistribution()
      const outcome = await runSuite(distribution, version)
      note('Distribution 3.1', version, outcome)
      expect(outcome.counted.total).toBeGreaterThan(LEAST_TESTS[version])
    },
    180_000,
  )
})
