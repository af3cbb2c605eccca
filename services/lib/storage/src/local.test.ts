import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { blobStorageContract } from './contract.ts'
import { FileStorage } from './drivers/files.ts'
import { MemoryStorage } from './drivers/memory.ts'

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
