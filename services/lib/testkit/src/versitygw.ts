import { spawn } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { freePort } from '@haven/embedded'
import { findTool } from './tools.ts'

/** A real S3 server on a folder of its own, with real signatures. */
export interface VersityGw extends AsyncDisposable {
  readonly endpoint: string
  readonly region: string
  readonly accessKey: string
  readonly secretKey: string
  /** What a Haven that keeps its blobs there is set to. */
  readonly settings: Readonly<Record<string, string>>
  /** Objects are plain files below it, so a test can damage one. */
  readonly folder: string
  readonly pid: number
}

/** Starts the binary that `findTool('versitygw')` finds, on a folder of its own, or on that of one that was killed. */
export async function startVersityGw({ folder: taken }: { folder?: string } = {}): Promise<VersityGw> {
  const binary = findTool('versitygw')
  if (binary === null) throw new Error('versitygw is not installed')
  const folder = taken ?? (await mkdtemp(join(tmpdir(), 'haven-s3-')))
  const port = await freePort()
  const [accessKey, secretKey] = ['testkey', 'testsecret12']
  const child = spawn(binary, ['-q', '-p', `127.0.0.1:${port}`, 'posix', folder], {
    env: { ...process.env, ROOT_ACCESS_KEY: accessKey, ROOT_SECRET_KEY: secretKey },
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  let complaint = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => (complaint = (complaint + text).slice(-2000)))
  const exited = new Promise<never>((_, reject) => {
    child.once('error', reject)
    child.once('exit', (code) => reject(new Error(`versitygw ended with ${code}: ${complaint}`)))
  })
  exited.catch(() => {}) // its end is awaited below, at the start and at the stop
  const stop = async () => {
    child.kill('SIGKILL')
    await exited.catch(() => {})
    await rm(folder, { recursive: true, force: true })
  }
  try {
    await Promise.race([listening(port), exited])
  } catch (error) {
    await stop()
    throw error
  }
  const [endpoint, region] = [`http://127.0.0.1:${port}`, 'us-east-1']
  return {
    endpoint,
    region,
    accessKey,
    secretKey,
    settings: {
      STORAGE_DRIVER: 's3',
      S3_ENDPOINT: endpoint,
      S3_REGION: region,
      S3_ACCESS_KEY: accessKey,
      S3_SECRET_KEY: secretKey,
    },
    folder,
    pid: child.pid as number,
    [Symbol.asyncDispose]: stop,
  }
}

async function listening(port: number): Promise<void> {
  for (let attempt = 0; attempt < 400; attempt += 1) {
    const connected = await new Promise<boolean>((resolve) => {
      const socket = connect(port, '127.0.0.1')
      socket.once('connect', () => resolve(true)).once('error', () => resolve(false))
      socket.once('connect', () => socket.destroy())
    })
    if (connected) return
    await sleep(25)
  }
  throw new Error('versitygw does not listen after 10 s')
}
