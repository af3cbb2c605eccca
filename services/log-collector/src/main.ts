import { run } from '@haven/runtime'
import { logCollectorConfig } from './config.ts'
import { LogFiles } from './log-files.ts'
import { createLogCollector } from './service.ts'

await run(async ({ config, log, metrics, trust }) => {
  const { path, maxFileBytes, maxAgeMs, keep, maxTotalBytes, forwardUrl, forwardCa, forwardBufferBytes } = config
  return createLogCollector({
    files: await LogFiles.open(path, { maxFileBytes, maxAgeMs, keep, maxTotalBytes }, log),
    secret: config.logCollectorSecret,
    log,
    metrics,
    trust,
    ...(forwardUrl && { forwardTo: { url: forwardUrl, ca: forwardCa?.text, bufferBytes: forwardBufferBytes } }),
    ...(config.syslogPort !== undefined && { syslog: { host: config.syslogHost, port: config.syslogPort } }),
  })
}, logCollectorConfig)
