import type { Socket } from 'node:net'
import { describe, expect, it } from '@jest/globals'
import { readConfig } from '@haven/config'
import { contextOf, createLogger, createMetrics, enter, listen } from '@haven/runtime'
import { proxyConfig } from './config.ts'
import { createProxy } from './service.ts'
import { TrustedProxies } from './trusted-proxies.ts'

const from = (remoteAddress: string) => ({ remoteAddress }) as Socket
const saying = (headers: Record<string, string>) => (name: string) => headers[name]

describe('clients behind a balancer', () => {
  const trusted = new TrustedProxies(['10.0.0.0/8', 'fd00::/8'])

  it.each([
    ['the balancer says who it is', '10.1.1.1', '198.51.100.7', '198.51.100.7'],
    ['an IPv4 address in a socket of IPv6', '::ffff:10.1.1.1', '198.51.100.7', '198.51.100.7'],
    ['an IPv6 client', 'fd00::1', '2001:db8::7', '2001:db8::7'],
    ['A50: what the client claimed stands before', '10.1.1.1', '192.0.2.66, 198.51.100.7', '198.51.100.7'],
    ['A50: a claim to be a balancer', '10.1.1.1', '192.0.2.66, 10.9.9.9, 198.51.100.7', '198.51.100.7'],
    ['two balancers, one behind the other', '10.1.1.1', '198.51.100.7, 10.2.2.2', '198.51.100.7'],
    ['a client within the balancers’ network', '10.1.1.1', '10.3.3.3, 10.2.2.2', '10.3.3.3'],
    ['A50: not from a balancer', '192.0.2.1', '198.51.100.7', '192.0.2.1'],
    ['no address', '10.1.1.1', 'evil, unknown', '10.1.1.1'],
    ['an address after what is none', '10.1.1.1', '198.51.100.7, <script>, 10.2.2.2', '10.2.2.2'],
    ['nothing', '10.1.1.1', ' , ', '10.1.1.1'],
  ])('%s', (_name, socket, forwardedFor, client) => {
    expect(trusted.clientOf(from(socket), saying({ 'x-forwarded-for': forwardedFor })).clientAddress).toBe(client)
  })

  it.each([
    ['10.1.1.1', 'https', 'https'],
    ['10.1.1.1', 'http, https', 'https'],
    ['10.1.1.1', 'gopher', 'http'],
    ['192.0.2.1', 'https', 'http'],
  ])('A50: %s says that the client came by %s', (socket, said, scheme) => {
    expect(trusted.clientOf(from(socket), saying({ 'x-forwarded-proto': said })).scheme).toBe(scheme)
  })

  it.each(['10.0.0.0/33', '10.0.0/8', 'example.org', '10.0.0.0/8/8', '::/129', '10.0.0.1/'])(
    'refuses %s at the start',
    (network) => {
      const env = { HAVEN_PROXY_SECRET: 'x'.repeat(32), PROXY_TRUSTED_PROXIES: `192.0.2.1,${network}` }
      expect(() => readConfig(proxyConfig, env)).toThrow('is neither an address nor a network')
    },
  )

  it('hands it on, and no header of a client with it', async () => {
    const log = createLogger({ service: 'test', level: 'silent' })
    const seen: unknown[] = []
    const trust = { proxySecret: 'x'.repeat(32) }
    const metrics = createMetrics()
    const core = await listen(
      (req, res) => {
        enter(req, res, { name: 'core', log, metrics, trust })
        const { clientAddress, scheme } = contextOf(req)
        seen.push([clientAddress, scheme, req.headers['x-real-ip']])
        res.end()
      },
      { host: '127.0.0.1', port: 0 },
    )
    const target = `http://127.0.0.1:${core.port}`
    await using proxy = createProxy({
      targets: { registry: target, token: target, core: target },
      storage: null,
      secret: trust.proxySecret,
      log,
      metrics,
      portalFolder: 'nowhere',
      trustedProxies: new TrustedProxies(['127.0.0.1']),
    })
    const door = await listen(proxy.handler, { host: '127.0.0.1', port: 0 })
    try {
      const answer = await fetch(`http://127.0.0.1:${door.port}/api/v2.0/ping`, {
        headers: { 'X-Forwarded-For': '198.51.100.7', 'X-Forwarded-Proto': 'https', 'X-Real-IP': '192.0.2.66' },
      })
      expect(answer.headers.get('strict-transport-security')).toContain('max-age')
      expect(seen).toEqual([['198.51.100.7', 'https', undefined]])
    } finally {
      await Promise.all([door.drain(100), core.drain(100)])
    }
  })
})
