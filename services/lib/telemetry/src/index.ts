export { cause, causedBy, type Cause } from './cause.ts'
export { targetOf, tracingConfig } from './config.ts'
export {
  inSpan,
  startTracing,
  tracing,
  type Carrier,
  type OpenSpan,
  type SpanOptions,
  type Tracing,
} from './tracing.ts'
