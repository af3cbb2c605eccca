import { describe, expect, it } from '@jest/globals'
import { Supervisor, type Running, type Supervised, type SupervisorStatus } from './supervisor.ts'

/** Something that runs until `end` is called, as often as it is started. */
function mortal(name: string): Supervised & { end(how: number | string): void; starts: number[] } {
  let ended = Promise.withResolvers<number | string>()
  const starts: number[] = []
  return {
    name,
    starts,
    end: (how) => ended.resolve(how),
    async start(): Promise<Running> {
      ended = Promise.withResolvers()
      starts.push(performance.now())
      const { promise, resolve } = ended
      return { pid: 1000 + starts.length, exited: promise, stop: async () => resolve(0) }
    },
  }
}

function supervised() {
  const published: SupervisorStatus[][] = []
  const supervisor: Supervisor = new Supervisor({
    log: () => undefined,
    onChange: () => published.push(supervisor.status()),
  })
  const said = async (wanted: Partial<SupervisorStatus>) => {
    while (!Object.entries(wanted).every(([key, value]) => published.at(-1)?.[0]?.[key as 'pid'] === value)) {
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
  }
  return { supervisor, said }
}

describe('Supervisor', () => {
  it('publishes the new process of what ended and was started again', async () => {
    const { supervisor, said } = supervised()
    const front = mortal('front')
    await supervisor.add(front)
    await said({ pid: 1001, ready: true, restarts: 0 })
    front.end('SIGKILL')
    await said({ pid: null, ready: false })
    await said({ pid: 1002, ready: true, restarts: 1 })
    await supervisor.stop()
  }, 5000)

  it('forgets what is discarded, running or never started, and keeps the rest', async () => {
    const { supervisor } = supervised()
    const [redis, front] = [mortal('redis'), mortal('front')]
    const broken = { name: 'back', start: () => Promise.reject(new Error('its port is taken')) }
    await supervisor.add(redis)
    await supervisor.add(front)
    await expect(supervisor.add(broken)).rejects.toThrow('its port is taken')
    await supervisor.discard(['front', 'back'])
    expect(supervisor.status()).toEqual([{ name: 'redis', pid: 1001, ready: true, restarts: 0 }])
    await supervisor.add(front)
    expect(front.starts).toHaveLength(2)
    await supervisor.stop()
  })

  it('waits longer each time while a process keeps ending', async () => {
    const { supervisor, said } = supervised()
    const front = mortal('front')
    await supervisor.add(front)
    for (const pid of [1001, 1002, 1003]) {
      await said({ pid })
      front.end(1)
    }
    await said({ pid: 1004 })
    await supervisor.stop()
    const pauses = front.starts.slice(1).map((at, n) => at - front.starts[n]!)
    expect(pauses[0]).toBeGreaterThanOrEqual(195)
    expect(pauses[1]).toBeGreaterThanOrEqual(395)
    expect(pauses[2]).toBeGreaterThanOrEqual(795)
    expect(pauses[2]).toBeLessThan(5000)
  }, 10_000)

  it('starts nothing again once it is told to stop', async () => {
    const { supervisor } = supervised()
    const front = mortal('front')
    await supervisor.add(front)
    front.end(0)
    await supervisor.stop()
    await new Promise((resolve) => setTimeout(resolve, 300))
    expect(front.starts).toHaveLength(1)
  }, 5000)
})
