import { Agent, request, type IncomingMessage } from 'node:http'
import { expect, it } from '@jest/globals'
import { listen } from './listen.ts'

it('a drain ends streams that have no end: those that are there, and those that begin over a connection that was kept', async () => {
  const server = await listen(
    (req, res) => {
      res.setHeader('Content-Type', req.url === '/events' ? 'text/event-stream' : 'text/plain')
      res.write('hello')
      if (req.url !== '/events') res.end()
    },
    { host: '127.0.0.1', port: 0 },
  )
  const agent = new Agent({ keepAlive: true, maxSockets: 2 })
  const ask = (path: string) =>
    new Promise<IncomingMessage>((resolve, reject) => {
      request({ agent, host: '127.0.0.1', port: server.port, path }, resolve).on('error', reject).end()
    })
  const ended = (answer: IncomingMessage) => new Promise((resolve) => answer.resume().on('end', () => resolve(true)))
  const early = await ask('/events')
  await ended(await ask('/kept'))
  const drained = server.drain(10_000)
  const late = await ask('/events')
  expect(await Promise.all([ended(early), ended(late), drained])).toEqual([true, true, true])
  agent.destroy()
})
