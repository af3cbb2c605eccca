import { problems } from '@haven/errors'
import { canonicalPath, parseQuery, parseRegistryPath, problemOfPath, refusals, type RegistryPath } from '@haven/oci'
import { contextOf } from '@haven/runtime'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Call, RegistryContext } from './call.ts'
import type { Moved } from './registry-metrics.ts'
import * as blobs from './handlers/blobs.ts'
import * as catalog from './handlers/catalog.ts'
import * as manifests from './handlers/manifests.ts'
import * as referrers from './handlers/referrers.ts'
import * as tags from './handlers/tags.ts'
import * as uploads from './handlers/uploads.ts'

type Kind = RegistryPath['kind']
type At<K extends Kind> = Extract<RegistryPath, { kind: K }>
type Handler<K extends Kind> = (call: Call, at: At<K>, context: RegistryContext) => Promise<void> | void
type Method = 'GET' | 'HEAD' | 'POST' | 'PATCH' | 'PUT' | 'DELETE'
type Route<K extends Kind> = { template: string } & Partial<Record<Method, Handler<K>>>

/** The whole of `/v2`. */
const routes: { [K in Kind]: Route<K> } = {
  ping: { template: '/v2/', GET: catalog.ping, HEAD: catalog.ping },
  catalog: { template: '/v2/_catalog', GET: catalog.list, HEAD: catalog.list },
  discover: { template: '/v2/_oci/ext/discover', GET: catalog.discover, HEAD: catalog.discover },
  tags: { template: '/v2/{name}/tags/list', GET: tags.list, HEAD: tags.list },
  manifest: {
    template: '/v2/{name}/manifests/{reference}',
    GET: manifests.get,
    HEAD: manifests.head,
    PUT: manifests.put,
    DELETE: manifests.remove,
  },
  blob: { template: '/v2/{name}/blobs/{digest}', GET: blobs.get, HEAD: blobs.head, DELETE: blobs.remove },
  uploads: { template: '/v2/{name}/blobs/uploads/', POST: uploads.start },
  upload: {
    template: '/v2/{name}/blobs/uploads/{upload}',
    GET: uploads.status,
    HEAD: uploads.status,
    PATCH: uploads.append,
    PUT: uploads.finish,
    DELETE: uploads.cancel,
  },
  referrers: { template: '/v2/{name}/referrers/{digest}', GET: referrers.list, HEAD: referrers.list },
}

/** How metrics name requests of a kind. */
export const templateOf = (kind: Kind): string => routes[kind].template

/** What pulls ask for again and again, and what causes nothing that would have to name its cause. */
export function isPull({ method, url = '' }: IncomingMessage): boolean {
  if (method !== 'GET' && method !== 'HEAD') return false
  return url === '/v2/' || (url.startsWith('/v2/') && (url.includes('/manifests/') || url.includes('/blobs/')))
}

/** Answers a request under `/v2`, or rejects with what is to be answered. */
export async function route(
  req: IncomingMessage,
  res: ServerResponse,
  context: RegistryContext,
  moved: Moved,
): Promise<void> {
  const { path, query } = readTarget(req.url ?? '')
  const at = parseRegistryPath(path)
  if (at === null) throw problems.pathNotFound({ path })
  const { template, ...handlers } = routes[at.kind === 'invalid' ? at.of : at.kind] as Route<Kind>
  contextOf(req).route = template
  context.metrics.matched(moved, template)

  const method = req.method ?? ''
  if (!Object.hasOwn(handlers, method)) {
    const allowed = Object.keys(handlers)
    throw problems.methodNotAllowed({ method, allowed }, { headers: { Allow: allowed.join(', ') } })
  }
  // Before anybody is asked who he is, as Harbor does: a client that would be sent for a token learns that it is of no use.
  if (method !== 'GET' && method !== 'HEAD' && (await context.settings.read()).read_only) throw problems.readOnly()
  if (at.kind === 'invalid') throw problemOfPath(at, method)
  await (handlers[method as Method] as Handler<Kind>)({ req, res, query, moved }, at, context)
}

function readTarget(target: string): { path: string; query: URLSearchParams } {
  const canonical = canonicalPath(target)
  if ('refused' in canonical) throw problems.nameInvalid({ name: '', reason: refusals[canonical.refused] })
  const query = parseQuery(canonical.query)
  if ('refused' in query) throw problems.badRequest({ message: refusals[query.refused] })
  return { path: canonical.path, query }
}
