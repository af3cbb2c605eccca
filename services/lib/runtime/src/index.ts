export { answerProblem, finish, named, sendProblem, serviceApp, type Envelope } from './app.ts'
export { bodyChunks } from './body-chunks.ts'
export { bodyIntake } from './body-intake.ts'
export { hasBody, parseJson, readBody, readJson, type JsonLimits } from './body.ts'
export {
  bearerToken,
  contextOf,
  enter,
  enterDirectly,
  handOverRequest,
  internalHeaders,
  saneRequestId,
  sameSecret,
  settle,
  socketAddress,
  writeHead,
  type Gate,
  type HeaderList,
  type RequestContext,
  type Trust,
} from './context.ts'
export { Health, healthOnly, withHealth } from './health.ts'
export type { Limits } from './limits.ts'
export { AGENT_IDLE_MS, listen, type Listening, type ListenOptions } from './listen.ts'
export { openLogDestination, type LogDestination, type LogDestinationOptions } from './log-destination.ts'
export { accessLog, type AccessLine } from './access-log.ts'
export { createLogger, type Logger, type LogLevel } from './logger.ts'
export { createMetrics, Family, requestSeconds, type Metrics, type RequestMeasure, type Served } from './metrics.ts'
export { collectAtRest } from './collect-at-rest.ts'
export { escapeDeceptive, loggable } from './redaction.ts'
export { run, stop, untilStopped, type Host, type HostedConfig, type RunOptions } from './run.ts'
export { encryptionKey, open, seal } from './seal.ts'
export type { Asked, RequestHandler, Service, ShortAnswerer } from './service.ts'
export { serviceShortcut } from './service-shortcut.ts'
export { harmlessHeaders, type Asker, type ShortAnswer, type Shortcut, type ShortReply } from './shortcut.ts'
export { tracedService } from './traced-service.ts'
export { knownSecrets, pairSecret, serviceSettings } from './settings.ts'
