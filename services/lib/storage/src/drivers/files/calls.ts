import { close, open, read, write } from 'node:fs'
import { link, rename, stat, unlink } from 'node:fs/promises'
import { promisify } from 'node:util'
import { problems } from '@haven/errors'

// File handles of fs/promises cost more per call than descriptors, and the pump makes one call per buffer.
export const openFile = promisify(open)
export const closeFile = promisify(close)

export interface Filled {
  readonly buffer: Buffer
  readonly bytes: number
}

export function readOnce(fd: number, buffer: Buffer, length: number, position: number): Promise<Filled> {
  return new Promise((resolve, reject) => {
    read(fd, buffer, 0, length, position, (error, bytes) => (error ? reject(error) : resolve({ buffer, bytes })))
  })
}

/** A write may take only a part, above all on a disk that is nearly full. */
export function writeFully(fd: number, buffer: Buffer, from: number, length: number, position: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const writeOn = (done: number) => {
      write(fd, buffer, from + done, length - done, position + done, (error, bytes) => {
        if (error) reject(error)
        else if (done + bytes < length) writeOn(done + bytes)
        else resolve()
      })
    }
    writeOn(0)
  })
}

/** Puts a file where there is none: false when there is one, which stays. */
export async function placeOnce(staged: string, final: string): Promise<boolean> {
  try {
    await link(staged, final)
    return true
  } catch (error) {
    if (codeOf(error) === 'EEXIST') return false
    // Some network and user-space file systems have no second names.
    if (!['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'EMLINK'].includes(codeOf(error))) throw error
  }
  if (await statOrNull(final)) return false
  await rename(staged, final)
  return true
}

export async function openOrNull(path: string): Promise<number | null> {
  try {
    return await openFile(path, 'r+')
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return null
    throw error
  }
}

export async function statOrNull(path: string) {
  try {
    return await stat(path)
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return null
    throw error
  }
}

export async function unlinkIfThere(path: string) {
  try {
    await unlink(path)
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') throw error
  }
}

/** The code of a system call's error; of any other its text. */
export function codeOf(error: unknown): string {
  const known = error as { code?: unknown; message?: unknown } | null
  return String(known?.code ?? known?.message ?? error)
}

const FULL = new Set(['ENOSPC', 'EDQUOT', 'EFBIG'])
/** The file system is there and does not take what it is given: read-only after an error, gone from the network, not ours to write. */
const REFUSING = new Set(['EROFS', 'EIO', 'ESTALE', 'ENODEV', 'ENXIO', 'EACCES', 'EPERM'])

/** As the problem it is when the disk is full or refuses; anything else as it came. */
export function asProblem(error: unknown): unknown {
  const code = codeOf(error)
  if (FULL.has(code)) return problems.diskFull({ reason: 'the blob store is full' }, { cause: error })
  if (REFUSING.has(code)) {
    return problems.storageUnreachable({ reason: `its folder refuses to be written (${code})` }, { cause: error })
  }
  return error
}
