import { parseRepositoryName, parseTag, type RepositoryName, type Scope, type Tag } from '@haven/oci'
import type { OutboundResponse } from '@haven/outbound'
import { expectStatus, failed, headerOf, headOf, objectOf } from './answers.ts'
import { scopeOf, type RegistryRequest, type Transport } from './transport.ts'

const PAGE_SIZE = 1000
/** Some registries ignore `n` and answer all at once. */
const MAX_PAGE_BYTES = 16 * 1024 * 1024
const MAX_PAGES = 10_000

/** The tags page by page; none for a repository that is not there. What is no tag by the specification could not be pulled and is left out. */
export async function* listTags(
  transport: Transport,
  name: RepositoryName,
  signal?: AbortSignal,
): AsyncGenerator<readonly Tag[]> {
  const first = transport.url({ kind: 'tags', name }, { n: PAGE_SIZE })
  for await (const answer of pages(transport, first, [scopeOf(name, 'pull')], signal)) {
    if (answer.status === 404) return void headOf(answer)
    yield await names(answer, 'tags', parseTag)
  }
}

/** The repositories page by page, as far as the credential may see them. Many public registries refuse this. */
export async function* listCatalog(
  transport: Transport,
  signal?: AbortSignal,
): AsyncGenerator<readonly RepositoryName[]> {
  const scopes = [{ type: 'registry', name: 'catalog', actions: ['*'] }]
  for await (const answer of pages(transport, transport.url({ kind: 'catalog' }, { n: PAGE_SIZE }), scopes, signal)) {
    yield await names(answer, 'repositories', parseRepositoryName)
  }
}

/** Follows `Link` within the registry's origin, each page once. */
export async function* pages(
  transport: Transport,
  first: URL,
  scopes: readonly Scope[],
  signal: AbortSignal | undefined,
  request: Partial<RegistryRequest> = {},
): AsyncGenerator<OutboundResponse> {
  const seen = new Set<string>()
  for (let url: URL | null = first; url !== null;) {
    if (seen.has(url.href) || seen.size >= MAX_PAGES) throw failed(transport.base, 'its list does not end')
    seen.add(url.href)
    const answer = await transport.send(url, { ...request, scopes, signal, maxBytes: MAX_PAGE_BYTES })
    try {
      const next = nextOf(headerOf(answer, 'link'))
      url = next === null ? null : transport.own(next, url)
      yield answer
    } finally {
      answer.body.destroy()
    }
  }
}

/** The target of `rel="next"` (RFC 8288). */
function nextOf(header: string | undefined): string | null {
  for (const [, target = '', parameters = ''] of (header ?? '').matchAll(/<([^<>]*)>([^<]*)/g)) {
    if (/;\s*rel\s*=\s*(?:"(?:[^"]*\s)?next(?:\s[^"]*)?"|next\s*(?:[;,]|$))/i.test(parameters)) return target
  }
  return null
}

async function names<T extends string>(
  answer: OutboundResponse,
  key: string,
  parse: (text: string) => T | null,
): Promise<readonly T[]> {
  const listed = (await objectOf(expectStatus(answer, 200)))[key] ?? [] // Go writes an empty list as null
  if (!Array.isArray(listed)) throw failed(answer.url, `its answer has no ${key}`)
  return listed.flatMap((text: unknown) => (typeof text === 'string' ? (parse(text) ?? []) : []))
}
