import { spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import * as fs from 'node:fs'
import { mkdtemp, readdir, rm, truncate } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough } from 'node:stream'
import { afterEach, beforeEach, describe, expect, it, jest } from '@jest/globals'
import type { ByteSource } from './blob-storage.ts'
import { readStorageConfig } from './config.ts'
import { blobStorageContract, inPieces } from './contract.ts'
import { FileStorage } from './drivers/files.ts'
import { MemoryStorage } from './drivers/memory.ts'
import { ObjectTruncated, UploadLost } from './failures.ts'
import { MemoryBudget } from './memory-budget.ts'
import { newObjectKey } from './object-key.ts'
import { openStorage } from './open-storage.ts'

const MiB = 1024 ** 2

blobStorageContract('memory', async () => {
  const storage = new MemoryStorage()
  return { storage, peer: storage, close: () => storage[Symbol.asyncDispose]() }
})

blobStorageContract('files', async () => {
  const root = await mkdtemp(join(tmpdir(), 'haven-files-'))
  const [storage, peer] = [await FileStorage.open(root), await FileStorage.open(root)]
  return {
    storage,
    peer,
    close: async () => {
      await storage[Symbol.asyncDispose]()
      await peer[Symbol.asyncDispose]()
      await rm(root, { recursive: true })
    },
  }
})

async function collected(source: AsyncIterable<Buffer>): Promise<Buffer> {
  const pieces: Buffer[] = []
  for await (const piece of source) pieces.push(piece)
  return Buffer.concat(pieces)
}

describe('file storage', () => {
  let root: string
  beforeEach(async () => {
    root = await mkdtemp(join(tmpdir(), 'haven-files-'))
  })
  afterEach(() => rm(root, { recursive: true }))

  const incoming = () => readdir(join(root, 'incoming'))

  it('shows its buffers, in memory that threads share, and waits until they were used', async () => {
    await using storage = await FileStorage.open(root)
    const bytes = randomBytes(3 * MiB + 77)
    const seen: Buffer[] = []
    const key = newObjectKey()
    const { state } = await storage.append(key, null, 0, inPieces(Buffer.from(bytes)), {
      onGathered: async (buffer) => {
        expect(buffer.buffer).toBeInstanceOf(SharedArrayBuffer)
        for (let n = 0; n < 5; n += 1) await new Promise((resolve) => setImmediate(resolve))
        seen.push(Buffer.from(buffer))
      },
    })
    await storage.complete(key, state, bytes.length)
    const stored = await collected(storage.read(key))
    expect([Buffer.concat(seen).equals(bytes), stored.equals(bytes)]).toEqual([true, true])
  })

  it('fails with what its buffers were used for, and can go on', async () => {
    await using storage = await FileStorage.open(root)
    const bytes = randomBytes(3 * MiB)
    const key = newObjectKey()
    const { state } = await storage.append(key, null, 0, inPieces(bytes.subarray(0, MiB)))
    const onGathered = () => Promise.reject(new Error('the thread that sums has ended'))
    const rest = () => inPieces(bytes.subarray(MiB))
    await expect(storage.append(key, state, MiB, rest(), { onGathered })).rejects.toThrow('the thread that sums')
    expect(await storage.append(key, state, MiB, rest())).toMatchObject({ written: 2 * MiB })
  })

  describe('of a source that writes into its buffers', () => {
    /** As a socket would, in reads of all sizes; fails at its end with `failure`. */
    const intoBuffers = (bytes: Buffer, failure?: Error): ByteSource & { closed: number } => {
      let at = 0
      const source = {
        closed: 0,
        [Symbol.asyncIterator]: () => {
          throw new Error('it was to be asked for an intake')
        },
        intake: async () => ({
          async fill(into: Buffer) {
            await new Promise((resolve) => setImmediate(resolve))
            const taken = bytes.copy(into, 0, at)
            at += taken
            if (taken < into.length && failure) throw failure
            return taken
          },
          close: () => void (source.closed += 1),
        }),
      }
      return source
    }

    it.each([0, 1, 256 * 1024, MiB, 3 * MiB + 77])('stores and shows %d bytes', async (length) => {
      await using storage = await FileStorage.open(root)
      const bytes = randomBytes(length)
      const key = newObjectKey()
      const seen: Buffer[] = []
      const source = intoBuffers(bytes)
      const { state, written } = await storage.append(key, null, 0, source, {
        onGathered: async (buffer) => void seen.push(Buffer.from(buffer)),
        sizeHint: length,
        last: true,
      })
      await storage.complete(key, state, length)
      expect([written, source.closed, Buffer.concat(seen).equals(bytes)]).toEqual([length, 1, true])
      expect((await collected(storage.read(key))).equals(bytes)).toBe(true)
    })

    it('stays as it was when the source fails, or when it is stopped while the source is silent', async () => {
      await using storage = await FileStorage.open(root)
      const bytes = randomBytes(3 * MiB)
      const key = newObjectKey()
      const { state } = await storage.append(key, null, 0, intoBuffers(bytes.subarray(0, MiB)))
      const failing = intoBuffers(bytes.subarray(0, MiB + 5), new Error('the client left'))
      await expect(storage.append(key, state, MiB, failing)).rejects.toThrow('the client left')
      const stop = new AbortController()
      let closed = 0
      const silent = {
        ...intoBuffers(bytes),
        intake: async () => ({
          fill: () => new Promise<number>(() => stop.abort(new Error('stopped'))),
          close: () => void (closed += 1),
        }),
      }
      await expect(storage.append(key, state, MiB, silent, { signal: stop.signal })).rejects.toThrow('stopped')
      expect([failing.closed, closed]).toEqual([1, 1])
      const { state: whole } = await storage.append(key, state, MiB, intoBuffers(bytes.subarray(MiB)))
      await storage.complete(key, whole, bytes.length)
      expect((await collected(storage.read(key))).equals(bytes)).toBe(true)
    })
  })

  /** A storage for whose process some calls of node:fs are others. */
  const withFs = async (changed: Partial<typeof fs>, changedPromises: Partial<typeof fs.promises> = {}) => {
    let storage: FileStorage | undefined
    await jest.isolateModulesAsync(async () => {
      jest.unstable_mockModule('node:fs', () => ({ ...fs, ...changed }))
      jest.unstable_mockModule('node:fs/promises', () => ({ ...fs.promises, ...changedPromises }))
      const fresh = await import('./drivers/files.ts')
      storage = await fresh.FileStorage.open(root)
    })
    jest.unstable_unmockModule('node:fs')
    jest.unstable_unmockModule('node:fs/promises')
    return storage as FileStorage
  }
  const failing = (code: string) => Object.assign(new Error(code), { code })

  describe.each([
    ['a file system that can write around the page cache', null],
    ['one that refuses to open a file so', 'open'],
    ['one that takes such a file and refuses its writes', 'write'],
  ] as const)('on %s', (_, refuses) => {
    const refusing = () => {
      const direct = new Set<number>()
      const tried = { opens: 0 }
      const open = ((path: string, flags: number | string, ...rest: unknown[]) => {
        const done = rest.at(-1) as (error: Error | null, fd?: number) => void
        const isDirect = typeof flags === 'number' && (flags & fs.constants.O_DIRECT) !== 0
        if (isDirect) tried.opens += 1
        if (isDirect && refuses === 'open') return done(failing('EINVAL'))
        fs.open(path, flags, typeof rest[0] === 'number' ? rest[0] : null, (error, fd) => {
          if (isDirect && !error) direct.add(fd)
          else direct.delete(fd) // its number was used before
          done(error, fd)
        })
      }) as typeof fs.open
      const write = ((fd: number, ...rest: [Buffer, number, number, number, (error: Error | null) => void]) => {
        if (direct.has(fd) && refuses === 'write') return rest[4](failing('EINVAL'))
        fs.write(fd, ...rest)
      }) as typeof fs.write
      return { tried, open, write }
    }

    it('keeps every byte of uploads of any length, appended at any offset', async () => {
      const { tried, ...changed } = refusing()
      await using storage = await withFs(changed)
      for (const lengths of [[3 * MiB], [3 * MiB + 5, 2 * MiB], [2 * MiB, 2 * MiB + 1], [4096, 2 * MiB]]) {
        const key = newObjectKey()
        const bytes = randomBytes(lengths.reduce((sum, length) => sum + length))
        let state: Awaited<ReturnType<FileStorage['append']>>['state'] | null = null
        let offset = 0
        for (const length of lengths) {
          const piece = bytes.subarray(offset, offset + length)
          ;({ state } = await storage.append(key, state, offset, inPieces(piece)))
          offset += length
        }
        await storage.complete(key, state, bytes.length)
        expect(fs.readFileSync(join(root, key)).equals(bytes)).toBe(true)
      }
      for (const length of [MiB, 700_001, 4096, 128 * 1024, 1]) {
        const key = newObjectKey()
        const bytes = randomBytes(length)
        const { state } = await storage.append(key, null, 0, inPieces(bytes), { last: true, sizeHint: length })
        await storage.complete(key, state, length)
        expect(fs.readFileSync(join(root, key)).equals(bytes)).toBe(true)
      }
      expect(tried.opens).toBeGreaterThan(0)
      // Asked once: a file system that cannot does not learn it.
      if (refuses !== null) expect(tried.opens).toBe(1)
      expect(await incoming()).toEqual([])
    })
  })

  it('does not trust a file again whose sync failed', async () => {
    let syncs = 0
    const fdatasync = ((_fd: number, done: (error: Error | null) => void) => {
      syncs += 1
      done(syncs === 1 ? failing('EIO') : null)
    }) as typeof fs.fdatasync
    await using storage = await withFs({ fdatasync })
    const key = newObjectKey()
    const { state } = await storage.append(key, null, 0, inPieces(randomBytes(1000)))
    const lost = { name: UploadLost.name }
    await expect(storage.complete(key, state, 1000)).rejects.toMatchObject(lost)
    await expect(storage.complete(key, state, 1000)).rejects.toMatchObject(lost)
    await expect(storage.append(key, state, 1000, inPieces(randomBytes(1)))).rejects.toMatchObject(lost)
    expect(await storage.stat(key)).toBeNull()
    expect(await incoming()).toEqual([])
  })

  it('writes whole pages around the page cache, whatever their number, and what is left of a page through it', async () => {
    const writes: [boolean, number][] = []
    const direct = new Set<number>()
    const open = ((path: string, flags: number, mode: number | null, done: (error: Error | null, fd: number) => void) =>
      fs.open(path, flags, mode, (error, fd) => {
        if ((flags & fs.constants.O_DIRECT) !== 0) direct.add(fd)
        else direct.delete(fd)
        done(error, fd)
      })) as typeof fs.open
    const write = ((fd: number, buffer: Buffer, from: number, length: number, ...rest: [number, () => void]) => {
      writes.push([direct.has(fd), length])
      fs.write(fd, buffer, from, length, ...rest)
    }) as typeof fs.write
    const promisified = ((path: string, flags: number, ...rest: unknown[]) => {
      const done = rest.at(-1) as (error: Error | null, fd: number) => void
      return open(path, flags, typeof rest[0] === 'number' ? rest[0] : null, done)
    }) as typeof fs.open
    await using storage = await withFs({ open: promisified, write })
    const push = async (length: number) => {
      writes.length = 0
      const key = newObjectKey()
      const { state } = await storage.append(key, null, 0, inPieces(randomBytes(length)), {
        last: true,
        sizeHint: length,
      })
      await storage.complete(key, state, length)
      return [...writes]
    }
    await push(MiB) // whether the file system can is known from now on
    const can = writes[0]![0]
    expect(await push(MiB)).toEqual([[can, MiB]])
    expect(await push(700_001)).toEqual(
      can
        ? [
            [true, 696_320],
            [false, 3681],
          ]
        : [[false, 700_001]],
    )
    expect(await push(100_000)).toEqual([[false, 100_000]])
    expect(await push(MiB + 5000)).toEqual(
      can
        ? [
            [true, MiB / 2],
            [true, MiB / 2],
            [false, 5000],
          ]
        : expect.anything(),
    )
  })

  describe('a small upload that comes whole', () => {
    it('has its name on the disk before it is there, and fails when the disk refuses the name', async () => {
      const syncs: string[] = []
      let refuse = false
      const openFolder = (async (path: string, ...rest: [string]) => {
        const handle = await fs.promises.open(path, ...rest)
        const sync = handle.sync.bind(handle)
        handle.sync = async () => {
          syncs.push(path)
          if (refuse) throw failing('EIO')
          return sync()
        }
        return handle
      }) as typeof fs.promises.open
      await using storage = await withFs({}, { open: openFolder })
      const key = newObjectKey()
      syncs.length = 0
      const { state } = await whole(storage, key, randomBytes(1000))
      expect(syncs).toEqual([join(root, key, '..')])
      await storage.complete(key, state, 1000)
      expect(syncs).toHaveLength(1)
      // Of an attempt that did not wait for it, as an older version's: then.
      await storage.complete(key, { token: state.token, placed: true }, 1000)
      expect(syncs).toHaveLength(2)
      refuse = true
      const other = newObjectKey()
      await expect(whole(storage, other, randomBytes(1000))).rejects.toMatchObject({ name: UploadLost.name })
      expect([await storage.stat(other), await incoming()]).toEqual([null, []])
    })

    const whole = (storage: FileStorage, key: string, bytes: Buffer) =>
      storage.append(key, null, 0, inPieces(bytes), { last: true, sizeHint: bytes.length })

    it('is under its last name at once, and can go on all the same', async () => {
      await using storage = await FileStorage.open(root)
      const bytes = randomBytes(2000)
      const key = newObjectKey()
      const { state } = await whole(storage, key, bytes.subarray(0, 1000))
      expect([await storage.stat(key), await incoming()]).toEqual([{ sizeBytes: 1000 }, []])
      await expect(storage.complete(key, state, 2000)).rejects.toThrow(/bytes/)
      const failure = new Error('the client left')
      const broken = (async function* () {
        yield randomBytes(10)
        throw failure
      })()
      await expect(storage.append(key, state, 1000, broken)).rejects.toBe(failure)
      const more = await storage.append(key, state, 1000, inPieces(bytes.subarray(1000)))
      expect(await storage.stat(key)).toBeNull()
      await storage.complete(key, more.state, 2000)
      expect((await collected(storage.read(key))).equals(bytes)).toBe(true)
    })

    it('is longer than it was said to be', async () => {
      await using storage = await FileStorage.open(root)
      const bytes = randomBytes(3 * MiB)
      const key = newObjectKey()
      const given = { last: true, sizeHint: 10 }
      const { state, written } = await storage.append(key, null, 0, inPieces(Buffer.from(bytes)), given)
      await storage.complete(key, state, bytes.length)
      expect([written, (await collected(storage.read(key))).equals(bytes)]).toEqual([bytes.length, true])
    })

    it('is never written over what another attempt has written', async () => {
      await using storage = await FileStorage.open(root)
      const key = newObjectKey()
      const { state } = await whole(storage, key, Buffer.from('first'))
      await expect(whole(storage, key, Buffer.from('other'))).rejects.toMatchObject({ name: UploadLost.name })
      await storage.complete(key, state, 5)
      expect(String(await collected(storage.read(key)))).toBe('first')
      await storage.discard(key, state)
      expect(await storage.stat(key)).toBeNull()
      await expect(storage.complete(key, state, 5)).rejects.toMatchObject({ name: UploadLost.name })
    })

    it('F32: leaves nothing when the disk does not take its bytes, and is written anew', async () => {
      let writes = 0
      const write = ((...given: unknown[]) => {
        writes += 1
        if (writes > 1) return Reflect.apply(fs.write, fs, given) as void
        const done = given.at(-1) as (error: Error | null, bytes: number) => void
        return done(failing('EIO'), 0)
      }) as typeof fs.write
      await using storage = await withFs({ write })
      const key = newObjectKey()
      const bytes = randomBytes(1000)
      await expect(whole(storage, key, bytes)).rejects.toMatchObject({ kind: { name: 'storageUnreachable' } })
      expect([await storage.stat(key), await incoming()]).toEqual([null, []])
      await storage.complete(key, (await whole(storage, key, bytes)).state, 1000)
      expect((await collected(storage.read(key))).equals(bytes)).toBe(true)
    })
  })

  it('goes on from the old offset after a write failed in the middle', async () => {
    let writes = 0
    const write = ((...given: unknown[]) => {
      writes += 1
      const done = given.at(-1) as (error: Error | null, bytes: number) => void
      if (writes === 3) return done(failing('ENOSPC'), 0)
      // A disk that is nearly full takes a part.
      const [fd, buffer, offset, length, position] = given as [number, Buffer, number, number, number]
      fs.write(fd, buffer, offset, Math.ceil(length / 2), position, done)
    }) as typeof fs.write
    await using storage = await withFs({ write })
    const bytes = randomBytes(4 * MiB)
    const key = newObjectKey()
    const first = await storage.append(key, null, 0, inPieces(bytes.subarray(0, 2)))
    await expect(storage.append(key, first.state, 2, inPieces(bytes.subarray(2)))).rejects.toMatchObject({
      name: 'Problem',
      kind: { name: 'diskFull' },
    })
    const second = await storage.append(key, first.state, 2, inPieces(bytes.subarray(2)))
    await storage.complete(key, second.state, bytes.length)
    expect(Buffer.concat(await storage.read(key).toArray()).equals(bytes)).toBe(true)
  })

  it('works on a file system without hard links, and there too never replaces an object', async () => {
    const link = (() => Promise.reject(failing('EPERM'))) as typeof fs.promises.link
    await using storage = await withFs({}, { link })
    const key = newObjectKey()
    const put = async (bytes: Buffer) => {
      const { state } = await storage.append(key, null, 0, inPieces(bytes))
      await storage.complete(key, state, bytes.length)
    }
    await put(Buffer.from('first'))
    await put(Buffer.from('other'))
    expect(String(Buffer.concat(await storage.read(key).toArray()))).toBe('first')
    expect(await incoming()).toEqual([])
  })

  it('answers that the store is full when it is, leaves nothing and recovers without a restart', async () => {
    const script = `
      import { FileStorage, newObjectKey } from ${JSON.stringify(new URL('index.ts', import.meta.url).href)}
      const storage = await FileStorage.open(process.argv[1])
      const put = async (size) => {
        const key = newObjectKey()
        const { state } = await storage.append(key, null, 0, (async function* () {
          for (let at = 0; at < size; at += 65536) yield Buffer.alloc(65536)
        })())
        await storage.complete(key, state, size)
        return 'stored'
      }
      console.log(JSON.stringify([
        await put(8 * 1024 ** 2).catch((error) => [error.kind?.name, error.status]),
        await put(65536),
      ]))`
    // The limit of a file's size stands for a full disk: the same code path, and it needs no privilege.
    const ran = spawnSync(
      'sh',
      ['-c', 'ulimit -f 4096; exec "$0" --input-type=module -e "$1" "$2"', process.execPath, script, root],
      {
        encoding: 'utf8',
        env: { ...process.env, NODE_OPTIONS: '' },
      },
    )
    expect({ error: ran.stderr, out: ran.stdout.trim() }).toEqual({ error: '', out: '[["diskFull",503],"stored"]' })
    expect(await incoming()).toEqual([])
  })

  it('notices an object that was cut short on the disk', async () => {
    await using storage = await FileStorage.open(root)
    const key = newObjectKey()
    const { state } = await storage.append(key, null, 0, inPieces(randomBytes(3 * MiB)))
    await storage.complete(key, state, 3 * MiB)
    await truncate(join(root, key), 2 * MiB)
    const sending = storage.send(key, { offset: 0, length: 3 * MiB }, new PassThrough().resume())
    await expect(sending).rejects.toBeInstanceOf(ObjectTruncated)
  })

  it('notices an upload that lost bytes in a power cut', async () => {
    await using storage = await FileStorage.open(root)
    const key = newObjectKey()
    const { state } = await storage.append(key, null, 0, inPieces(randomBytes(1000)))
    await truncate(join(root, 'incoming', String((await incoming())[0])), 999)
    await expect(storage.append(key, state, 1000, inPieces(randomBytes(1)))).rejects.toBeInstanceOf(UploadLost)
  })

  it('completes many uploads at the same time', async () => {
    await using storage = await FileStorage.open(root)
    // Keys of one folder, so that syncs of it are shared.
    const keys = Array.from({ length: 50 }, () => newObjectKey().replace(/^o\/..\/../, 'o/aa/aa'))
    await Promise.all(
      keys.map(async (key) => {
        const { state } = await storage.append(key, null, 0, inPieces(Buffer.from(key)))
        await storage.complete(key, state, key.length)
      }),
    )
    const listed: string[] = []
    for await (const { key } of storage.list()) listed.push(key)
    expect(listed).toEqual([...keys].sort())
  })

  it('says that its folder cannot be used', async () => {
    fs.writeFileSync(join(root, 'file'), '')
    await expect(FileStorage.open(join(root, 'file'))).rejects.toThrow(/its folder cannot be made \((ENOTDIR|EEXIST)\)/)
    const storage = await FileStorage.open(join(root, 'store'))
    await rm(join(root, 'store'), { recursive: true })
    fs.writeFileSync(join(root, 'store'), '')
    await expect(storage.check()).rejects.toMatchObject({ status: 503, kind: { exitCode: 24 } })
    await storage[Symbol.asyncDispose]()
  })
})

describe('memory budget', () => {
  it('admits in the order of arrival, and nobody overtakes who waits', async () => {
    const budget = new MemoryBudget(10, 1000)
    const admitted: string[] = []
    await budget.reserve(8)
    const large = budget.reserve(6).then(() => admitted.push('large'))
    const small = budget.reserve(1).then(() => admitted.push('small'))
    expect(budget.tryReserve(1)).toBe(false)
    budget.release(8)
    await Promise.all([large, small])
    expect(admitted).toEqual(['large', 'small'])
    expect(budget.tryReserve(3)).toBe(true)
    expect(budget.tryReserve(1)).toBe(false)
  })

  it('forgets who gave up waiting', async () => {
    const budget = new MemoryBudget(10, 1000)
    await budget.reserve(10)
    const stop = new AbortController()
    const waiting = budget.reserve(5, stop.signal)
    stop.abort(new Error('left'))
    await expect(waiting).rejects.toThrow('left')
    budget.release(10)
    expect(budget.tryReserve(10)).toBe(true)
  })
})

describe('storage settings', () => {
  it.each([
    ['files', { STORAGE_PATH: '/data' }, { driver: 'files', path: '/data' }],
    [
      'S3 by its own names',
      { STORAGE_DRIVER: 's3', S3_ENDPOINT: 'https://s3.example', S3_ACCESS_KEY: 'a', S3_SECRET_KEY: 'b' },
      { driver: 's3', s3Endpoint: 'https://s3.example', s3AccessKey: 'a', s3Bucket: 'haven', s3PathStyle: true },
    ],
    [
      "S3 by MinIO's names",
      { MINIO_ENDPOINT: 'minio:9000', MINIO_ROOT_USER: 'a', MINIO_ROOT_PASSWORD: 'b', MINIO_BUCKET: 'mine' },
      { driver: 's3', s3Endpoint: 'http://minio:9000', s3AccessKey: 'a', s3SecretKey: 'b', s3Bucket: 'mine' },
    ],
    [
      'files, although MinIO is near',
      { STORAGE_DRIVER: 'files', STORAGE_PATH: '/data', MINIO_ENDPOINT: 'minio:9000' },
      { driver: 'files' },
    ],
  ])('choose %s', (_, env, expected) => {
    expect(readStorageConfig(env)).toMatchObject(expected)
  })

  it('name what a driver lacks', () => {
    expect(() => readStorageConfig({})).toThrow('STORAGE_PATH: not set')
    const incomplete = { STORAGE_DRIVER: 's3', S3_ENDPOINT: 'https://s3.example' }
    expect(() => readStorageConfig(incomplete)).toThrow(/S3_ACCESS_KEY: not set.*\n.*S3_SECRET_KEY: not set/)
  })

  it('open what they name', async () => {
    const root = await mkdtemp(join(tmpdir(), 'haven-files-'))
    await using storage = await openStorage(readStorageConfig({ STORAGE_PATH: join(root, 'new') }))
    expect(storage.name).toBe('files')
    await storage.check()
    await rm(root, { recursive: true })
  })
})
