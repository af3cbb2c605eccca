import { harborEnvelope } from '@haven/errors'
import { operations } from '@haven/proto'
import { contextOf, finish, serviceApp, type RequestHandler } from '@haven/runtime'
import { Browser } from './browser.ts'
import { identify } from './caller.ts'
import type { CoreContext } from './context.ts'
import { mountExplorer } from './explorer.ts'
import { handlers } from './handlers/index.ts'
import { send, sendNotFoundPage } from './http/answer.ts'
import { parseTarget } from './http/request.ts'
import { ApiRouter, isApiPath } from './router.ts'
import { handleSession } from './session-routes.ts'

/** The management API under /api, and the sessions of browsers under /c, as a handler of requests. */
export function coreApp(deps: CoreContext): RequestHandler {
  const { log, metrics, trust } = deps
  const app = serviceApp({ name: 'core', log, metrics, trust, envelope: harborEnvelope })
  const router = new ApiRouter(deps, handlers)
  mountExplorer(app)

  app.use(async (req, res, next) => {
    const target = parseTarget(req.url)
    const { path } = target
    const underC = path.startsWith('/c/')
    if (!underC && !path.startsWith('/api/') && !path.startsWith('/service/')) return next()
    // A stream is asked for again and again while nobody is at the keyboard, and its client can set no header (portal.md §2.8).
    const mayRenew = path.replace(/\/$/, '') !== operations.streamEvents.path
    const browser = await Browser.open(deps, req, res, { always: underC, mayRenew })
    if (underC) return handleSession({ deps, req, res, target, browser })
    if (isApiPath(path)) return router.handle(req, res, target, () => identify(deps, req, browser))
    if (path === '/api/version' && req.method === 'GET') {
      contextOf(req).route = path
      const headers = { 'Content-Type': 'text/plain; charset=utf-8' }
      return send(res, { status: 200, headers, body: JSON.stringify({ version: 'v2.0' }) })
    }
    sendNotFoundPage(res, { head: req.method === 'HEAD' })
  })

  return finish(app)
}
