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
  it('fails nothing for 1.1', async () => {
    await using registry = await startRegistry()
    const results = process.env.CONFORMANCE_RESULTS ?? mkdtempSync(join(tmpdir(), 'haven-conformance-'))
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
              OCI_VERSION: process.env.OCI_VERSION ?? '1.1',
              OCI_RESULTS_DIR: results,
            },
            maxBuffer: 64 * 1024 * 1024,
          },
          (_error, stdout, stderr) => resolve(stdout + stderr),
        )
      })
      const summary = readFileSync(join(results, 'results.yaml'), 'utf8')
      const counts = Object.fromEntries(
        [...output.matchAll(/^\s*(Total|Pass|Fail|Skip|Error)\w*:?\s+(\d+)/gim)].map(([, name, n]) => [name!.toLowerCase(), Number(n)]),
      )
      if (process.env.CONFORMANCE_RESULTS) console.log(output.slice(-4000), summary.slice(0, 1500))
      expect(counts.total ?? 0).toBeGreaterThan(500)
      expect(counts.fail ?? 0).toBe(0)
    } finally {
      if (!process.env.CONFORMANCE_RESULTS) rmSync(results, { recursive: true, force: true })
    }
  })
})
