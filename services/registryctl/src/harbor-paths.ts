import { eraseTrash, explainDigest, makeDue, purgeNow } from '@haven/artifacts/gc'
import { problems } from '@haven/errors'
import { parseDigest, parseRepositoryName, splitProject, type Digest } from '@haven/oci'
import { contextOf, named } from '@haven/runtime'
import type { Express } from 'express'
import type { RegistryctlContext } from './context.ts'

/** A backup is being taken, which lasts. */
const HELD_RETRY_SECONDS = 60
const run = { executionId: null, actor: 'registryctl' }

/**
 * The two deletes of Harbor's registryctl (harbor-jobs-and-data.md §7). Here they end what was deleted before; what is in use is
 * refused, since no caller can know better than the record.
 */
export function mountHarborPaths(app: Express, context: RegistryctlContext): void {
  const { db, storage, gc, projects } = context

  app.delete('/api/registry/blob/:digest', named('/api/registry/blob/{digest}'), async (req, res) => {
    const digest = digestOf(String(req.params.digest))
    if ((await makeDue(db, storage.name, digest)) === 0) {
      const { present } = await explainDigest(gc, digest)
      if (present) throw problems.stillReferenced({ message: `${digest} is in use` })
      throw problems.blobUnknown({ digest })
    }
    const { failures, held } = await eraseTrash(db, storage)
    if (held) throw problems.serviceUnavailable({ retryAfterSeconds: HELD_RETRY_SECONDS })
    for (const { key, reason } of failures) contextOf(req).log.warn({ key, reason }, 'an object could not be erased')
    res.status(200).end()
  })

  app.delete(
    /^\/api\/registry\/(.+)\/manifests\/([^/]+)$/,
    named('/api/registry/{name}/manifests/{digest}'),
    async (req, res) => {
      const [name, text] = [String(req.params[0]), String(req.params[1])]
      const digest = digestOf(text)
      const repository = parseRepositoryName(name)
      const where = repository && splitProject(repository)
      if (!where) throw problems.nameInvalid({ name })
      const project = await projects.byName(where.project)
      const outcome = project ? await purgeNow(gc, run, { projectId: project.id, path: where.path, digest }) : 'absent'
      if (outcome === 'absent') throw problems.manifestUnknown({ repository: name, reference: digest })
      if (outcome === 'alive') throw problems.stillReferenced({ message: `${name}@${digest} is in use` })
      res.status(200).end()
    },
  )

  app.all(['/api/registry/blob/:digest', /^\/api\/registry\/.+\/manifests\/[^/]+$/], (req) => {
    throw problems.methodNotAllowed({ method: req.method, allowed: ['DELETE'] })
  })
}

function digestOf(text: string): Digest {
  const digest = parseDigest(text)
  if (!digest) throw problems.digestInvalid({ digest: text, reason: `invalid digest: ${text}` })
  return digest
}
