import { randomInt } from 'node:crypto'
import { createServer } from 'node:net'

// Below what Linux gives to outgoing connections (32768 and up), any of which could take the port before its server does.
const FIRST = 20_000
const LAST = 32_767
const TRIES = 100

/** Ports that this process was given already: free until their servers listen, and not to be given twice. */
const given = new Set<number>()

/** A TCP port of 127.0.0.1 that was free a moment ago, and another one each time. @throws when a hundred tries found none. */
export async function freePort(): Promise<number> {
  for (let tries = 0; tries < TRIES; tries++) {
    const port = randomInt(FIRST, LAST + 1)
    if (given.has(port) || !(await isFree(port))) continue
    given.add(port)
    return port
  }
  throw new Error(`none of ${TRIES} ports between ${FIRST} and ${LAST} is free`)
}

function isFree(port: number): Promise<boolean> {
  const server = createServer()
  return new Promise((resolve) => {
    server.once('error', () => resolve(false))
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)))
  })
}
