import { problems } from '@haven/errors'

type Rule = (value: string) => string | null

const boolean: Rule = (value) => {
  const lower = value.toLowerCase()
  return lower === 'true' || lower === 'false' ? lower : null
}
const severities = new Set(['none', 'unknown', 'negligible', 'low', 'medium', 'high', 'critical'])
const severity: Rule = (value) => (severities.has(value.toLowerCase()) ? value.toLowerCase() : null)
const limit: Rule = (value) => (/^(?:-1|\d{1,9})$/.test(value) ? value : null)
const filterKind: Rule = (value) => (value === 'doublestar' || value === 'regex' ? value : null)
const MAX_PATTERN_BYTES = 256
const filterPattern: Rule = (value) => (Buffer.byteLength(value) <= MAX_PATTERN_BYTES ? value : null)

/** What a person may set on a project, with what each value may be (harbor-features.md E). */
const rules: Record<string, Rule> = {
  public: boolean,
  enable_content_trust: boolean,
  enable_content_trust_cosign: boolean,
  prevent_vul: boolean,
  severity,
  auto_scan: boolean,
  auto_sbom_generation: boolean,
  reuse_sys_cve_allowlist: boolean,
  proxy_speed_kb: limit,
  max_upstream_conn: limit,
  proxy_cache_local_on_not_found: boolean,
  proxy_referrer_api: boolean,
  proxy_cache_filter_pattern: filterPattern,
  proxy_cache_filter_kind: filterKind,
}

const pullThroughOnly = new Set([
  'proxy_speed_kb',
  'max_upstream_conn',
  'proxy_cache_local_on_not_found',
  'proxy_referrer_api',
  'proxy_cache_filter_pattern',
  'proxy_cache_filter_kind',
])

export const isMetadataKey = (name: string): boolean => Object.hasOwn(rules, name)

/**
 * The metadata of a request that writes a project: unknown keys and nulls are dropped, an empty text means "not set", keys of
 * pull-through projects are dropped for others.
 * @throws badRequest that names the field.
 */
export function parseMetadata(
  input: Readonly<Record<string, unknown>>,
  { pullThrough }: { pullThrough: boolean },
): Record<string, string> {
  const parsed: Record<string, string> = {}
  for (const [name, value] of Object.entries(input)) {
    const rule = Object.hasOwn(rules, name) ? rules[name] : undefined
    if (!rule || value === null || value === undefined || value === '') continue
    if (!pullThrough && pullThroughOnly.has(name)) continue
    const accepted = typeof value === 'string' ? rule(value) : null
    if (accepted === null)
      throw problems.badRequest({
        message: refusal(name, rule, typeof value === 'string' ? value : JSON.stringify(value)),
      })
    parsed[name] = accepted
  }
  requireFilter(parsed)
  return parsed
}

/**
 * One key and value of the metadata API.
 * @throws badRequest for a key that is not a setting of this kind of project, and for a value that it cannot have.
 */
export function parseMetadatum(name: string, value: string, { pullThrough }: { pullThrough: boolean }): string {
  const rule = Object.hasOwn(rules, name) ? rules[name] : undefined
  if (!rule || (!pullThrough && pullThroughOnly.has(name)))
    throw problems.badRequest({ message: `invalid key: ${name}` })
  const accepted = rule(value)
  if (accepted === null) throw problems.badRequest({ message: `invalid value: ${value}` })
  requireFilter({ [name]: accepted })
  return accepted
}

function refusal(name: string, rule: Rule, value: string): string {
  if (rule === boolean) return `metadata.${name} should only be 'true' or 'false', but got: '${value}'`
  if (rule === severity) return `metadata.severity should be one of ${[...severities].join(', ')}, but got: '${value}'`
  return `invalid value of metadata.${name}: '${value}'`
}

/** An expression that does not compile would refuse every pull later on, far from who wrote it. */
function requireFilter(metadata: Record<string, string>) {
  const pattern = metadata.proxy_cache_filter_pattern
  if (pattern === undefined || metadata.proxy_cache_filter_kind !== 'regex') return
  try {
    // Harbor's expressions may begin with Go's inline flags, which JavaScript does not have. Only the syntax is looked at here.
    void new RegExp(pattern.replace(/^\(\?[imsU]+\)/, ''))
  } catch {
    throw problems.badRequest({ message: `invalid value of metadata.proxy_cache_filter_pattern: '${pattern}'` })
  }
}
