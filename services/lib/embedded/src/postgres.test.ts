import { statSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { describe, expect, it } from '@jest/globals'
import { postgresUrl } from './postgres.ts'

describe('a Postgres that asks for no password', () => {
  // The one of the whole run.
  const { port, searchParams } = new URL(process.env.HAVEN_TEST_POSTGRES!)
  const folder = searchParams.get('host')!

  it('lets in only who may enter its folder', async () => {
    expect(statSync(folder).mode & 0o077).toBe(0)
    expect(statSync(join(folder, `.s.PGSQL.${port}`)).isSocket()).toBe(true)
    const reached = await new Promise((resolve) => {
      const socket = connect(Number(port), '127.0.0.1')
      socket.once('connect', () => resolve('let in')).once('error', ({ code }: NodeJS.ErrnoException) => resolve(code))
      socket.once('close', () => socket.destroy())
    })
    expect(reached).toBe('ECONNREFUSED')
  })

  it('listens on loopback where the path of its folder is too long for a socket', () => {
    expect(postgresUrl({ folder: '/data', port: 5432 }, 'haven')).toBe(
      'postgresql://postgres@localhost:5432/haven?host=%2Fdata',
    )
    const long = `/${'d'.repeat(100)}`
    expect(postgresUrl({ folder: long, port: 5432 }, 'haven')).toBe('postgresql://postgres@127.0.0.1:5432/haven')
  })
})
