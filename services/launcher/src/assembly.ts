import { readConfig } from '@haven/config'
import type { Foundation } from '@haven/foundation'
import { tracedService, type Host, type Logger, type Service } from '@haven/runtime'
import type { ServiceName } from './targets.ts'

type Assembly = {
  host: Omit<Host<unknown>, 'config'>
  foundation: Foundation
  /** Services made already: the proxy calls them directly. */
  made: ReadonlyMap<ServiceName, Service>
  /** All that this process runs, in whatever order they are made. */
  names: readonly ServiceName[]
}

/** How each service is made from what the process shares. A process loads the code of the services that it runs, and no other. */
const makers: Record<ServiceName, (given: Assembly) => Promise<Service>> = {
  async token({ host, foundation }) {
    const { tokenConfig } = await import('@haven/token/config')
    const { openToken } = await import('@haven/token/open')
    return openToken({ ...host, config: readConfig(tokenConfig, host.env) }, foundation)
  },
  async registry({ host, foundation }) {
    const { registryConfig } = await import('@haven/registry/config')
    const { openRegistry } = await import('@haven/registry/open')
    return openRegistry({ ...host, config: readConfig(registryConfig, host.env) }, foundation)
  },
  async core({ host, foundation, made, names }) {
    const { coreConfig } = await import('@haven/core/config')
    const { openCore } = await import('@haven/core/open')
    return openCore({ ...host, config: readConfig(coreConfig, host.env) }, foundation, {
      // By name when somebody asks, since the proxy, which serves the portal, is made last.
      ...(names.includes('registry') && { registry: () => checkAll(made.get('registry')) }),
      ...(names.includes('proxy') && { portal: () => checkAll(made.get('proxy')) }),
    })
  },
  async jobservice({ host, foundation }) {
    const { jobserviceConfig } = await import('@haven/jobservice/config')
    const { openJobservice } = await import('@haven/jobservice/open')
    return openJobservice({ ...host, config: readConfig(jobserviceConfig, host.env) }, foundation)
  },
  async registryctl({ host, foundation }) {
    const { registryctlConfig } = await import('@haven/registryctl/config')
    const { openRegistryctl } = await import('@haven/registryctl/open')
    return openRegistryctl({ ...host, config: readConfig(registryctlConfig, host.env) }, foundation)
  },
  async exporter({ host, foundation }) {
    const { exporterConfig } = await import('@haven/exporter/config')
    const { openExporter } = await import('@haven/exporter/open')
    return openExporter({ ...host, config: readConfig(exporterConfig, host.env) }, foundation)
  },
  async 'log-collector'({ host }) {
    const { logCollectorConfig } = await import('@haven/log-collector/config')
    const { openLogCollector } = await import('@haven/log-collector/service')
    return openLogCollector({ ...host, config: readConfig(logCollectorConfig, host.env) })
  },
  async proxy({ host, foundation, made }) {
    const { proxyConfig } = await import('@haven/proxy/config')
    const { createProxy } = await import('@haven/proxy/service')
    const config = readConfig(proxyConfig, host.env)
    const target = (name: ServiceName, url: string) => made.get(name)?.handler ?? url
    return createProxy({
      targets: {
        registry: target('registry', config.registryUrl),
        token: target('token', config.tokenUrl),
        core: target('core', config.coreUrl),
      },
      shortAnswer: made.get('registry')?.shortAnswer,
      storage: made.has('registry') || !config.sendsBlobs ? null : await foundation.storage(),
      secret: config.proxySecret,
      log: host.log,
      metrics: host.metrics,
      portalFolder: config.portalFolder,
      trustedProxies: config.trustedProxies,
      answerWithinMs: config.answerWithinMs,
    })
  },
}

const checkAll = async (service: Service | undefined): Promise<void> => {
  await Promise.all(Object.values(service?.checks ?? {}).map((check) => check()))
}

export type AssemblyGiven = {
  host: Omit<Host<unknown>, 'config' | 'log'>
  foundation: Foundation
  logOf: (service: string) => Logger
}

/** Makes the services of one process; the proxy last, since it calls the others directly. */
export async function assemble(
  names: readonly ServiceName[],
  given: AssemblyGiven,
): Promise<Map<ServiceName, Service>> {
  const made = new Map<ServiceName, Service>()
  const order = names.toSorted((a, b) => Number(a === 'proxy') - Number(b === 'proxy'))
  for (const name of order) {
    const host = { ...given.host, log: given.logOf(name) }
    made.set(name, tracedService(host.use(await makers[name]({ host, foundation: given.foundation, made, names }))))
  }
  return made
}
