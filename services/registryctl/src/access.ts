import { problems } from '@haven/errors'
import { sameSecret } from '@haven/runtime'
import type { RequestHandler } from 'express'

const SCHEME = 'Harbor-Secret '

/** Lets only those in who show the secret, compared in constant time (threats.md R8). @throws problems.unauthorized */
export const requireSecret =
  (secret: string): RequestHandler =>
  (req, _res, next) => {
    const given = req.headers.authorization ?? ''
    if (!given.startsWith(SCHEME) || !sameSecret(given.slice(SCHEME.length), secret)) throw problems.unauthorized()
    next()
  }
