import { execFile } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from '@jest/globals'
import { findTool, lacking, titled } from '@haven/testkit/tools'
import { password, startRegistry } from './harness.ts'

const lack = lacking('conformance')
const conformance = lack ? describe.skip : describe

conformance(titled('the OCI conformance suite', lack), () => {
  it.each(['1.1', 'dev'])('fails nothing for %s', async (version) => {
    await using registry = await startRegistry()
    const results = mkdtempSync(join(tmpdir(), 'haven-conformance-'))
    try {
      const output = await new Promise<string>((resolve) => {
        execFile(
          findTool('conformance')!,
          {
            cwd: results,
            env: {
              PATH: process.env.PATH,
              HOME: results,
              OCI_REGISTRY: new URL(registry.urls[0]!).host,
              OCI_TLS: 'disabled',
              OCI_REPO1: 'acme/conformance/one',
              OCI_REPO2: 'acme/conformance/two',
              OCI_USERNAME: 'mia',
              OCI_PASSWORD: password,
              OCI_VERSION: version,
              OCI_RESULTS_DIR: results,
            },
            maxBuffer: 64 * 1024 * 1024,
          },
          (_error, stdout, stderr) => resolve(stdout + stderr),
        )
      })
      // The program ends with 0 also when it could not read its configuration: only its report counts.
      const report = readFileSync(join(results, 'junit.xml'), 'utf8')
      const total = Number(/<testsuites [^>]*tests="(\d+)"/.exec(report)?.[1])
      const failed = [...report.matchAll(/<testcase name="([^"]*)"[^>]*>\s*<failure/g)].map(([, name]) => name)
      expect({ failed, output: failed.length > 0 ? output.slice(-2000) : '' }).toEqual({ failed: [], output: '' })
      expect(total).toBeGreaterThan(800)
    } finally {
      rmSync(results, { recursive: true, force: true })
    }
  })
})
