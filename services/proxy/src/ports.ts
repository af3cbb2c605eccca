import { healthOnly, listen, type Health, type Listening, type Logger, type Service } from '@haven/runtime'
import { certificateSource, type ProxyConfig } from './config.ts'
import { openDoor, type DoorOptions } from './door.ts'

/** Opens what the settings ask for: the door, with TLS or without, and the port of health and metrics. */
export async function openProxyPorts(
  { handler, shortcut }: Pick<Service, 'handler' | 'shortcut'>,
  { config, log, health }: { config: ProxyConfig; log: Logger; health: Health },
  shared: Pick<DoorOptions, 'reusePort' | 'portSettings'> = {},
): Promise<readonly Listening[]> {
  const { host, port, metricsHost, metricsPort, externalUrl } = config
  const certificate = certificateSource(config)
  const door = await openDoor(handler, {
    ...shared,
    shortcut,
    host,
    port: certificate && !config.tlsRedirect ? null : port,
    externalUrl,
    limits: {
      maxConnectionsPerAddress: config.socketsPerClient,
      headersTimeoutMs: config.headersWithinMs,
      bodyTimeoutMs: config.bodyWithinMs,
      uploadRate: { bytesPerSecond: config.uploadBytesPerSecond, windowMs: config.uploadWindowMs },
      stalledReaderMs: config.stalledReaderMs,
    },
    log,
    ...(certificate && { tls: { port: config.tlsPort, certificate } }),
  })
  if (metricsPort === undefined) return door.listening
  const inside = await listen(healthOnly(health), {
    host: metricsHost,
    port: metricsPort,
    portSetting: 'PROXY_METRICS_PORT',
    onError: (err) => log.error({ err }, 'the port of metrics reported an error'),
  })
  return [...door.listening, inside]
}
