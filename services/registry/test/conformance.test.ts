import { execFile } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { homedir, tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from '@jest/globals'
import { password, startRegistry } from './harness.ts'

const program = join(process.env.HAVEN_TOOLS ?? join(homedir(), '.cache', 'haven', 'tools'), 'conformance')

// The program is built from source (go install …/distribution-spec/conformance); where it is not, the suite says so.
const conformance = existsSync(program) ? describe : describe.skip

conformance('the OCI conformance suite', () => {
  it.each(['1.1', 'dev'])('fails nothing for %s', async (version) => {
    await using registry = await startRegistry()
    const results = mkdtempSync(join(tmpdir(), 'haven-conformance-'))
    try {
      const output = await new Promise<string>((resolve) => {
        execFile(
          program,
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
