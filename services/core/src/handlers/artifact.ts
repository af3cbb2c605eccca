import {
  addTag,
  copyArtifact,
  deleteManifest,
  deleteTag,
  describeContent,
  findArtifact,
  labelArtifact,
  listAccessories,
  listArtifacts,
  listTagsOf,
  readAddition,
  readIcon,
  unlabelArtifact,
  type ArtifactParts,
  type ArtifactRow,
} from '@haven/artifacts'
import { TwoGenerations } from '@haven/db'
import { problems } from '@haven/errors'
import {
  parseArtifactName,
  parseDigest,
  parseReference,
  parseRepositoryName,
  parseTag,
  splitProject,
  type Digest,
} from '@haven/oci'
import { findLabels, type ProjectFacts } from '@haven/projects'
import { may, refusal } from '../access.ts'
import type { CoreContext } from '../context.ts'
import type { Handlers } from '../handler.ts'
import { findIcon } from '../icons.ts'
import { thumbnailOf } from '../thumbnail.ts'
import { created, ok, text } from '../http/answer.ts'
import { inTime } from '../http/in-time.ts'
import { listAnswer } from '../lists/page.ts'
import { presentAccessory, presentArtifact, presentContent, presentTag } from '../present/artifact.ts'
import { grantOf, listQueryOf } from './repository.ts'

type With = {
  with_tag?: boolean
  with_label?: boolean
  with_accessory?: boolean
  with_inherited_accessory?: boolean
  with_immutable_status?: boolean
}

export const artifactHandlers: Handlers = {
  /** A repository that is not there has no artifacts, as in Harbor. */
  async listArtifacts({ project, path, query, at }, deps) {
    const place = { project, path: path.repository_name }
    const asked = { ...listQueryOf(query), ...partsOf(query) }
    const { total, artifacts } = await listArtifacts(deps.artifacts, place, asked, failureOf(deps))
    return listAnswer(at, query, total, await present(deps, project, artifacts, query))
  },

  async listArtifactsOfProject({ project, query, at }, deps) {
    const latest = query.latest_in_repository ?? false
    const listQuery = listQueryOf(query)
    const kinds = listQuery.conditions.filter(({ field }) => field === 'media_type' || field === 'artifact_type')
    if (latest && kinds.length !== 1) {
      throw problems.badRequest({
        message:
          "bad request: either 'media_type' or 'artifact_type' must be specified, but not both, when querying with latest_in_repository",
      })
    }
    const asked = { ...listQuery, ...partsOf(query), latest }
    const { total, artifacts } = await listArtifacts(deps.artifacts, { project }, asked, failureOf(deps))
    return listAnswer(at, query, total, await present(deps, project, artifacts, query))
  },

  async getArtifact({ project, path, query }, deps) {
    const artifact = await requireArtifact(deps, project, path, partsOf(query))
    return ok((await present(deps, project, [artifact], query))[0])
  },

  async deleteArtifact({ project, path, caller }, deps) {
    const { digest } = await requireArtifact(deps, project, path)
    await deleteManifest(deps.artifacts, grantOf('delete', caller, project, path.repository_name), digest as Digest)
    return ok()
  },

  /** Whoever may push here and read there; `from` names what is copied. */
  async CopyArtifact({ project, path, query, caller }, deps) {
    requireOwnContent(project)
    const unknown = problems.badRequest({ message: `artifact ${query.from} not found` })
    const name = parseArtifactName(query.from)
    const parts = name && splitProject(name.repository)
    if (!name || !parts) throw unknown
    const source = await deps.directory.byName(parts.project)
    const on = { project: source ?? { id: 0, name: parts.project, public: false, createdAt: new Date(0) } }
    if (!(await may(caller, { resource: 'artifact', action: 'read', on }))) throw refusal(caller)
    if (!source) throw unknown
    const place = { project: source, path: parts.path }
    const artifact = await findArtifact(deps.artifacts, place, name.reference, {}, failureOf(deps))
    if (!artifact) throw unknown
    if (parseRepositoryName(`${project.name}/${path.repository_name}`) === null) {
      throw problems.nameInvalid({ name: path.repository_name })
    }
    const from = grantOf('pull', caller, source, parts.path)
    const to = grantOf('push', caller, project, path.repository_name)
    await inTime((signal) => copyArtifact(deps.artifacts, from, to, artifact.digest as Digest, { signal }))
    const base = `/api/v2.0/projects/${project.name}/repositories/${encodeURIComponent(encodeURIComponent(path.repository_name))}`
    return created(`${base}/artifacts/${name.reference.tag ?? name.reference.digest}`)
  },

  async listTags({ project, path, query, at }, deps) {
    const artifact = await requireArtifact(deps, project, path)
    const { total, rows } = await listTagsOf(deps.db, artifact.id, listQueryOf(query))
    const view = { project, artifact, withImmutableStatus: query.with_immutable_status ?? false }
    return listAnswer(
      at,
      query,
      total,
      rows.map((tag) => presentTag(tag, view)),
    )
  },

  async createTag({ project, path, body, caller }, deps) {
    requireOwnContent(project)
    const artifact = await requireArtifact(deps, project, path)
    const tag = parseTag(body.name)
    if (tag === null) throw problems.badRequest({ message: `bad request: invalid tag name: ${body.name}` })
    await addTag(deps.artifacts, grantOf('push', caller, project, path.repository_name), artifact, tag)
    return { status: 201 }
  },

  async deleteTag({ project, path, caller }, deps) {
    const { id } = await requireArtifact(deps, project, path)
    const tag = parseTag(path.tag_name)
    if (tag === null) throw problems.notFound({ message: `tag ${path.tag_name} attached to artifact ${id} not found` })
    await deleteTag(deps.artifacts, grantOf('delete', caller, project, path.repository_name), tag, { of: id })
    return ok()
  },

  async listAccessories({ project, path, query, at }, deps) {
    const subject = await requireArtifact(deps, project, path)
    const { total, rows } = await listAccessories(deps.db, subject, listQueryOf(query))
    const repository = `${project.name}/${subject.path}`
    return listAnswer(
      at,
      query,
      total,
      rows.map((accessory) => presentAccessory(accessory, repository)),
    )
  },

  async addLabel({ project, path, body, caller }, deps) {
    const artifact = await requireArtifact(deps, project, path)
    if (!body.id) throw problems.badRequest({ message: 'the id of the label is missing' })
    await labelArtifact(deps, grantOf('push', caller, project, path.repository_name), artifact, body.id)
    return ok()
  },

  async removeLabel({ project, path, caller }, deps) {
    const artifact = await requireArtifact(deps, project, path)
    await unlabelArtifact(deps, grantOf('push', caller, project, path.repository_name), artifact, path.label_id)
    return ok()
  },

  async getAddition({ project, path }, deps) {
    const artifact = await requireArtifact(deps, project, path)
    const { body, contentType } = await readAddition(deps.artifacts, artifact, path.addition)
    return text(body, contentType)
  },

  async getArtifactContent({ project, path }, deps) {
    const artifact = await requireArtifact(deps, project, path)
    return ok(presentContent(project, artifact, await describeContent(deps.artifacts, artifact)))
  },

  async getContentAddition({ project, path }, deps) {
    const artifact = await requireArtifact(deps, project, path)
    const { body, contentType } = await readAddition(deps.artifacts, artifact, path.addition)
    return text(body, contentType)
  },
}

export const iconHandlers: Handlers = {
  /** Ours, or one that an artifact brings along. */
  async getIcon({ path }, deps) {
    const png = findIcon(path.digest) ?? (await thumbnailOfArtifact(deps, path.digest))
    if (!png) throw problems.notFound({ message: `the icon ${path.digest} not found` })
    return ok({ 'content-type': 'image/png', content: png.toString('base64') })
  },
}

/** What was drawn once, by digest, or that it cannot be: anybody may ask, and drawing takes time. */
const MAX_THUMBNAILS = 500
const thumbnails = new TwoGenerations<{ png: Buffer | null }>(MAX_THUMBNAILS)

async function thumbnailOfArtifact(deps: CoreContext, named: string): Promise<Buffer | null> {
  const digest = parseDigest(named)
  const picture = digest && (await readIcon(deps.artifacts, digest))
  if (!picture) return null
  const drawn = thumbnails.get(digest) ?? { png: thumbnailOf(picture) }
  thumbnails.set(digest, drawn)
  return drawn.png
}

/** @throws methodNotAllowed for a project whose content comes from another registry only. */
function requireOwnContent({ registryId }: ProjectFacts): void {
  if (registryId !== null) {
    throw problems.methodNotAllowed({ message: "the operation isn't supported for a proxy project" })
  }
}

/** Tags unless they are not wanted; the rest when it is (harbor-api.md §4). */
const partsOf = (query: With): ArtifactParts => ({
  tags: query.with_tag ?? true,
  labels: query.with_label ?? false,
  accessories: query.with_accessory ?? false,
  inherited: query.with_inherited_accessory ?? false,
})

export const failureOf = ({ log }: CoreContext) => ({
  onFailure: (err: unknown) => log.warn({ err }, 'the config of an artifact cannot be read at the moment'),
})

/** @throws manifestUnknown, also for what is no reference at all: nothing is called so. */
export async function requireArtifact(
  deps: CoreContext,
  project: ProjectFacts,
  { repository_name: path, reference: named }: { repository_name: string; reference: string },
  parts: ArtifactParts = {},
): Promise<ArtifactRow> {
  const reference = parseReference(named)
  const found = reference && (await findArtifact(deps.artifacts, { project, path }, reference, parts, failureOf(deps)))
  if (found) return found
  // Of what only looks like a digest, as Harbor says it.
  const shown = `${project.name}/${path}:${named}`
  if (reference) throw problems.manifestUnknown({ repository: `${project.name}/${path}`, reference: named })
  throw problems.notFound({ message: `artifact ${shown} not found` })
}

async function present(deps: CoreContext, project: ProjectFacts, artifacts: readonly ArtifactRow[], query: With) {
  const labels = await findLabels(
    deps,
    artifacts.flatMap(({ labelIds }) => labelIds ?? []),
  )
  const withImmutableStatus = query.with_immutable_status ?? false
  return artifacts.map((artifact) => presentArtifact({ project, artifact, labels, withImmutableStatus }))
}
