import { execFile, spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { freePort } from '@haven/testkit'
import { findTool } from '@haven/testkit/tools'

export type Version = '1.1' | 'dev'

export type Subject = {
  /** `127.0.0.1:<port>` */
  host: string
  user?: { name: string; password: string }
  repositories: readonly [string, string]
}

/** What the suite found. `ended` is the last of its output, for a run that went wrong. */
export type Outcome = {
  /** As its summary counts: steps and groups of steps. */
  counted: { total: number; passed: number; failed: number; skipped: number }
  failed: string[]
  skipped: string[]
  /** APIs and kinds of data that its configuration left out. */
  disabled: string[]
  ended: string
}

/**
 * Runs the OCI conformance suite against a registry.
 *
 * @param cacheTokens whether the suite keeps a token for its next requests; without, each request begins with a challenge.
 * @param also switches of APIs that the version leaves out: `BLOBS_UPLOAD_CANCEL`.
 */
export async function runSuite(
  subject: Subject,
  version: Version,
  { cacheTokens = true, also = [] }: { cacheTokens?: boolean; also?: readonly string[] } = {},
): Promise<Outcome> {
  const results = mkdtempSync(join(tmpdir(), 'haven-conformance-'))
  try {
    const output = await new Promise<string>((resolve) => {
      const env = {
        PATH: process.env.PATH,
        HOME: results,
        OCI_REGISTRY: subject.host,
        OCI_TLS: 'disabled',
        OCI_REPO1: subject.repositories[0],
        OCI_REPO2: subject.repositories[1],
        ...(subject.user && { OCI_USERNAME: subject.user.name, OCI_PASSWORD: subject.user.password }),
        OCI_VERSION: version,
        OCI_CACHE_AUTH: String(cacheTokens),
        OCI_RESULTS_DIR: results,
        ...Object.fromEntries(also.map((name) => [`OCI_API_${name}`, 'true'])),
      }
      // Its exit code says nothing: 0 also when it could not read its configuration. What counts is its report.
      const limits = { maxBuffer: 64 * 1024 * 1024 }
      execFile(findTool('conformance')!, { cwd: results, env, ...limits }, (_error, stdout, stderr) =>
        resolve(stdout + stderr),
      )
    })
    const report = readFileSync(join(results, 'junit.xml'), 'utf8')
    const cases = [...report.matchAll(/<testcase name="([^"]*)"[^>]*status="(\w+)"/g)].map(([, name, status]) => ({
      name: name!,
      status: status!,
    }))
    const named = (...statuses: string[]) => cases.filter((one) => statuses.includes(one.status)).map((one) => one.name)
    const summed = (word: string) => Number(new RegExp(`^ *${word}\\.+: +(\\d+)$`, 'm').exec(output)?.[1])
    return {
      counted: {
        total: summed('Total'),
        passed: summed('Pass'),
        failed: summed('FAIL') + summed('Error'),
        skipped: summed('Skip'),
      },
      failed: cases.filter(({ status }) => !['passed', 'skipped', 'disabled'].includes(status)).map(({ name }) => name),
      skipped: named('skipped'),
      disabled: [...output.matchAll(/^ {2}(\S[^.\n]*)\.+: +Disabled$/gm)].map(([, name]) => name!),
      ended: output.slice(-2000),
    }
  } finally {
    rmSync(results, { recursive: true, force: true })
  }
}

export type Peer = AsyncDisposable & Subject

/** Distribution 3 as it comes, without authentication, on a folder of its own. */
export async function startDistribution(): Promise<Peer> {
  const folder = mkdtempSync(join(tmpdir(), 'haven-distribution-'))
  const host = `127.0.0.1:${await freePort()}`
  const config = join(folder, 'config.yml')
  writeFileSync(
    config,
    `version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: ${folder}/data}, delete: {enabled: true}}\nhttp: {addr: "${host}", secret: any}\n`,
  )
  const child = spawn(findTool('registry')!, ['serve', config], {
    env: { ...process.env, OTEL_TRACES_EXPORTER: 'none' },
    stdio: 'ignore',
  })
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()))
  const stop = async () => {
    child.kill('SIGKILL')
    await ended
    rmSync(folder, { recursive: true, force: true })
  }
  for (let tries = 0; !(await answers(`http://${host}/v2/`)); tries++) {
    if (tries === 200 || child.exitCode !== null) {
      await stop()
      throw new Error('Distribution did not start')
    }
    await sleep(50)
  }
  return { host, repositories: ['conf/r1', 'conf/r2'], [Symbol.asyncDispose]: stop }
}

async function answers(url: string): Promise<boolean> {
  try {
    return (await fetch(url)).ok
  } catch {
    return false // not yet
  }
}
