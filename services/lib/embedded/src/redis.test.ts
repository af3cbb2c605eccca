import { appendFileSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals'
import { Redis } from 'ioredis'
import { freePort } from './ports.ts'
import { startRedis } from './redis.ts'

describe('a Redis that keeps what it is told', () => {
  let folder: string
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'haven-redis-'))
  })
  afterEach(() => rmSync(folder, { recursive: true }))

  it('F34: starts with all that was synced when a power cut left zeros behind it', async () => {
    const options = { folder, port: await freePort(), durable: true }
    const first = await startRedis(options)
    const client = new Redis(first.url)
    for (let n = 0; n < 100; n++) await client.set(`key ${n}`, 'value')
    client.disconnect()
    await first.stop('SIGTERM')
    const files = readdirSync(join(folder, 'appendonlydir'))
    appendFileSync(
      join(
        folder,
        'appendonlydir',
        files.find((name) => name.endsWith('.incr.aof'))!,
      ),
      Buffer.alloc(3000),
    )
    let said = ''
    const second = await startRedis({ ...options, onOutput: (text) => void (said += text) })
    const again = new Redis(second.url)
    expect(await again.dbsize()).toBe(100)
    again.disconnect()
    await second.stop('SIGTERM')
    expect(said).toMatch(/Successfully truncated/)
  })

  it('says what it cannot read when that is not the end of a file', async () => {
    const options = { folder, port: await freePort(), durable: true }
    await (await startRedis(options)).stop('SIGTERM')
    appendFileSync(join(folder, 'appendonlydir', 'appendonly.aof.manifest'), 'no manifest\n')
    await expect(startRedis(options)).rejects.toThrow(/AOF manifest/)
  })
})
