import { harborDocument } from '@haven/proto'
import express, { type Express } from 'express'
import swaggerUi from 'swagger-ui-express'

/** The API's contract as a file and as a page to try it on, with assets of our own only. */
export function mountExplorer(app: Express): void {
  let contract: Buffer | null = null
  app.get('/swagger.json', (_req, res) => {
    contract ??= harborDocument()
    res.type('application/json').send(contract)
  })
  const page = swaggerUi.setup(undefined, {
    customSiteTitle: 'API explorer',
    swaggerOptions: { url: '/swagger.json', validatorUrl: null, tryItOutEnabled: false },
  })
  app.use('/devcenter-api-2.0', (req, _res, next) => {
    // The page's own links are relative to a folder; serveFiles redirects only what is not one.
    req.url = req.url === '' ? '/' : req.url
    next()
  })
  app.use('/devcenter-api-2.0', express.Router({ strict: false }).use(...swaggerUi.serve, page))
}
