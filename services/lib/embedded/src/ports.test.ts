import { describe, expect, it } from '@jest/globals'
import { freePort } from './ports.ts'

describe('freePort', () => {
  it('gives no port twice, and none of those of outgoing connections', async () => {
    const ports: number[] = []
    for (let n = 0; n < 500; n++) ports.push(await freePort())
    expect(new Set(ports).size).toBe(500)
    expect(Math.max(...ports)).toBeLessThan(32_768)
  })
})
