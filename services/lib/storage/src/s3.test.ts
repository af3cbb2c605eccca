import { FakeS3 } from '@haven/testkit/fake-s3'
import { findVersityGw, startVersityGw } from '@haven/testkit/versitygw'
import { describe, it } from '@jest/globals'
import { blobStorageContract } from './contract.ts'
import { S3Storage } from './drivers/s3.ts'

const quick = { attempts: 6, baseDelayMs: 2, maxDelayMs: 20 }

blobStorageContract('S3 (a fake)', async () => {
  const fake = await FakeS3.start({ pageSize: 7 })
  const options = {
    endpoint: fake.endpoint,
    region: 'r',
    bucket: 'blobs',
    accessKey: 'k',
    secretKey: 's',
    retry: quick,
  }
  const [storage, peer] = [await S3Storage.open(options), await S3Storage.open(options)]
  return {
    storage,
    peer,
    close: async () => {
      await storage[Symbol.asyncDispose]()
      await peer[Symbol.asyncDispose]()
      await fake[Symbol.asyncDispose]()
    },
  }
})

const versitygw = findVersityGw()
if (versitygw === null) {
  describe('S3 (versitygw)', () => {
    it.skip('needs the versitygw binary in $HAVEN_TOOLS or ~/.cache/haven/tools', () => {})
  })
} else {
  blobStorageContract('S3 (versitygw)', async () => {
    const server = await startVersityGw(versitygw)
    const { endpoint, region, accessKey, secretKey } = server
    const options = { endpoint, region, accessKey, secretKey, bucket: 'blobs', prefix: 'haven/', retry: quick }
    const [storage, peer] = [await S3Storage.open(options), await S3Storage.open(options)]
    return {
      storage,
      peer,
      close: async () => {
        await storage[Symbol.asyncDispose]()
        await peer[Symbol.asyncDispose]()
        await server[Symbol.asyncDispose]()
      },
    }
  })
}
