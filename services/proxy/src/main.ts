import { secretsOf } from '@haven/config'
import { run } from '@haven/runtime'
import { openStorage, readStorageConfig } from '@haven/storage'
import { proxyConfig } from './config.ts'
import { openProxyPorts } from './ports.ts'
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
      trustedProxies: config.trustedProxies,
      answerWithinMs: config.answerWithinMs,
    })
  },
  proxyConfig,
  {
    open: (service, { config, log }, health) => openProxyPorts(service, { config, log, health }),
  },
)
