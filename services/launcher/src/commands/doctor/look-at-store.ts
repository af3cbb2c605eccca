import { existsSync } from 'node:fs'
import { ConfigProblem } from '@haven/config'
import { newObjectKey, openStorage, readStorageConfig, type BlobStorage, type StorageConfig } from '@haven/storage'
import { failure, reasonOf, warning, type Finding, type Look } from './finding.ts'
import type { Ground } from './ground.ts'

const PROBE_BYTES = 4096
const WAIT_MS = 3_000
/** Beyond this S3 refuses signatures. */
const REFUSED_SKEW_SECONDS = 15 * 60
const SKEW_SECONDS = 60

/** Writes an object to the store, reads it and a range of it, removes it; and compares the clock of S3 with ours. */
export async function lookAtStore({ env, home }: Ground): Promise<Look[]> {
  let config: StorageConfig
  try {
    config = readStorageConfig({ ...(home && { STORAGE_PATH: home.blobs }), ...env, S3_TIMEOUT: `${WAIT_MS}ms` })
  } catch (error) {
    if (!(error instanceof ConfigProblem)) throw error
    // What is wrong with settings is told once; here only that there is no store.
    return [{ at: 'store', said: 'not looked at: STORAGE_PATH or S3_ENDPOINT does not say where it is', findings: [] }]
  }
  const { driver, path = '', s3Endpoint = '' } = config
  if (driver === 'files' && home !== null && path === home.blobs && !existsSync(path)) {
    return [{ at: 'store', said: 'made at the first start', findings: [] }]
  }
  const where = driver === 's3' ? `the bucket ${config.s3Bucket} at ${s3Endpoint}` : path
  const [store, clock] = await Promise.all([tryOut(config, where), driver === 's3' ? clockOf(s3Endpoint) : []])
  return [{ at: 'store', said: `${driver}, ${where}`, findings: store }, ...clock]
}

async function tryOut(config: StorageConfig, where: string): Promise<Finding[]> {
  let step = 'open'
  try {
    await using storage = await openStorage(config)
    step = 'write to'
    const key = newObjectKey()
    const sent = Buffer.alloc(PROBE_BYTES, key)
    const { state } = await storage.append(key, null, 0, only(sent), { last: true })
    await storage.complete(key, state, sent.length)
    step = 'read'
    const wrong = await compare(storage, key, sent).catch((error: unknown) => error)
    const { failed } = await storage.remove([key])
    if (wrong !== undefined) throw wrong
    step = 'delete from'
    if (failed[0]) throw failed[0].error
    return []
  } catch (error) {
    const todo =
      config.driver === 's3'
        ? 'see that S3_ENDPOINT, S3_REGION, S3_BUCKET, S3_ACCESS_KEY and S3_SECRET_KEY are right, and that the key may read, write and delete there'
        : 'see that the folder is there, that this user may write to it, and that its disk is well'
    return [failure('store.unusable', `we cannot ${step} ${where}: ${reasonOf(error)}`, todo)]
  }
}

async function compare(storage: BlobStorage, key: Parameters<BlobStorage['read']>[0], sent: Buffer) {
  const read = async (range?: { offset: number; length: number }) =>
    Buffer.concat((await storage.read(key, range).toArray()) as Buffer[])
  if (!(await read()).equals(sent)) throw new Error('what was written reads back differently')
  const [offset, length] = [1000, 100]
  if (!(await read({ offset, length })).equals(sent.subarray(offset, offset + length))) {
    throw new Error('a range of what was written reads back differently')
  }
}

async function* only(chunk: Uint8Array) {
  yield chunk
}

/** By the Date of an answer, which every server gives, also one that refuses. */
async function clockOf(endpoint: string): Promise<Look[]> {
  let answer
  try {
    answer = await fetch(endpoint, { method: 'HEAD', redirect: 'manual', signal: AbortSignal.timeout(WAIT_MS) })
  } catch {
    return [] // that it does not answer is told by the store itself
  }
  const date = Date.parse(answer.headers.get('date') ?? '')
  if (Number.isNaN(date)) return []
  const skew = Math.round((Date.now() - date) / 1000)
  const what = `this machine's clock is ${Math.abs(skew)} s ${skew < 0 ? 'behind' : 'ahead of'} that of the store`
  const make = Math.abs(skew) > REFUSED_SKEW_SECONDS ? failure : warning
  const findings =
    Math.abs(skew) > SKEW_SECONDS ? [make('clock.store', what, 'let both machines follow a time server (NTP)')] : []
  return [{ at: 'clock', said: `${skew} s from that of the store`, findings }]
}
