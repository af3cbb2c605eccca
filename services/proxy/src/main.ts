import { secretsOf } from '@haven/config'
import { healthOnly, listen, run } from '@haven/runtime'
import { openStorage, readStorageConfig } from '@haven/storage'
import { certificateSource, proxyConfig } from './config.ts'
import { openDoor } from './door.ts'
import { createProxy } from './service.ts'

await run(
  async ({ config, env, log, metrics, use, hide }) => {
    const storageConfig = config.sendsBlobs ? readStorageConfig(env) : null
    if (storageConfig) hide(secretsOf(storageConfig))
    return createProxy({
      targets: { registry: config.registryUrl, token: config.tokenUrl, core: config.coreUrl },
      storage: storageConfig && use(await openStorage(storageConfig)),
      secret: config.proxySecret,
      log,
      metrics,
      portalFolder: config.portalFolder,
      answerWithinMs: config.answerWithinMs,
    })
  },
  proxyConfig,
  {
    async open(service, { config, log }, health) {
      const { host, port, metricsHost, metricsPort, externalUrl } = config
      const certificate = certificateSource(config)
      const tls = certificate && { port: config.tlsPort, certificate }
      const door = await openDoor(service.handler, { host, port, externalUrl, log, ...(tls && { tls }) })
      if (metricsPort === undefined) return door.listening
      const inside = await listen(healthOnly(health), {
        host: metricsHost,
        port: metricsPort,
        portSetting: 'PROXY_METRICS_PORT',
      })
      return [...door.listening, inside]
    },
  },
)
