export * from './digest.ts'
export * from './names.ts'
export * from './path.ts'
export * from './reference.ts'
export * from './registry-path.ts'
export * from './manifest.ts'
export * from './media-types.ts'
export { parseStrictJson } from './strict-json.ts'
export * from './accept.ts'
export {
  compileDoublestar,
  matchDoublestar,
  maxAlternativeGroups,
  maxPatternBytes,
  type Matcher,
} from './doublestar.ts'
export * from './headers.ts'
export * from './ranges.ts'
export * from './scopes.ts'
export * from './tag-order.ts'
