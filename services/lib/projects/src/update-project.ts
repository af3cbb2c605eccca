import { problems } from '@haven/errors'
import { emit, type EventSource } from '@haven/events'
import { ProjectUpdatedSchema } from '@haven/proto/events'
import { parseAllowlist, type CveAllowlistInput } from './allowlist.ts'
import type { ProjectDeps, Transaction } from './deps.ts'
import type { ProjectNode } from './directory.ts'
import { isMetadataKey, parseMetadata, parseMetadatum } from './metadata.ts'

type Target = Pick<ProjectNode, 'id' | 'name'>

/**
 * Changes the settings that are named and leaves the others.
 * @throws badRequest for a value that cannot be, or a retention_id that is not the project's own; projectNotFound.
 */
export async function updateProject(
  deps: ProjectDeps,
  source: EventSource,
  project: Target,
  change: { metadata?: Readonly<Record<string, unknown>>; cveAllowlist?: CveAllowlistInput },
): Promise<void> {
  await changing(deps, source, project, async (tx, { pullThrough, metadata }) => {
    const retentionId = change.metadata?.retention_id
    if (retentionId && retentionId !== metadata.retention_id) {
      throw problems.badRequest({
        message:
          "the retention_id in the request's payload when updating a project should be omitted, " +
          'alternatively passing the one that has already been associated to this project',
      })
    }
    const settings = parseMetadata(change.metadata ?? {}, { pullThrough })
    await writeMetadata(tx, project.id, settings)
    if (change.cveAllowlist) {
      const { items, expiresAt } = parseAllowlist(change.cveAllowlist)
      await tx.cveAllowlist.upsert({
        where: { projectId: project.id },
        create: { projectId: project.id, items, expiresAt },
        update: { items, expiresAt },
      })
    }
    return [...Object.keys(settings), ...(change.cveAllowlist ? ['cve_allowlist'] : [])]
  })
}

/**
 * Sets one key that is not set yet.
 * @throws badRequest for an unknown key or a value that it cannot have; conflict when it is set.
 */
export async function addMetadatum(
  deps: ProjectDeps,
  source: EventSource,
  project: Target,
  name: string,
  value: string,
): Promise<void> {
  await changing(deps, source, project, async (tx, { pullThrough, metadata }) => {
    const accepted = parseMetadatum(name, value, { pullThrough })
    if (Object.hasOwn(metadata, name)) {
      throw problems.conflict({ message: `metadata ${name} already exists for project ${project.id}` })
    }
    await writeMetadata(tx, project.id, { [name]: accepted })
    return [name]
  })
}

/** Sets one key, whether it was set or not. @throws badRequest */
export async function setMetadatum(
  deps: ProjectDeps,
  source: EventSource,
  project: Target,
  name: string,
  value: string,
): Promise<void> {
  await changing(deps, source, project, async (tx, { pullThrough }) => {
    await writeMetadata(tx, project.id, { [name]: parseMetadatum(name, value, { pullThrough }) })
    return [name]
  })
}

/**
 * Unsets a key; nothing happens when it is not set. A project is private once `public` is gone.
 * @throws badRequest for the kind of a filter whose pattern is still there.
 */
export async function removeMetadatum(
  deps: ProjectDeps,
  source: EventSource,
  project: Target,
  name: string,
): Promise<void> {
  if (!isMetadataKey(name)) return
  await changing(deps, source, project, async (tx, { metadata }) => {
    if (name === 'proxy_cache_filter_kind' && metadata.proxy_cache_filter_pattern) {
      throw problems.badRequest({
        message: 'proxy_cache_filter_kind cannot be removed while proxy_cache_filter_pattern is set',
      })
    }
    const { count } = await tx.projectMetadata.deleteMany({ where: { projectId: project.id, name } })
    return count === 0 ? [] : [name]
  })
}

/** Runs a change under the project's row lock and tells of the fields that it names; without any, nothing is told. */
async function changing(
  { db, directory }: ProjectDeps,
  source: EventSource,
  { id, name }: Target,
  change: (tx: Transaction, now: { pullThrough: boolean; metadata: Record<string, string> }) => Promise<string[]>,
): Promise<void> {
  await db.prisma.$transaction(async (tx) => {
    const [locked] = await tx.$queryRaw<{ registry_id: number | null }[]>`
      select registry_id from projects.projects where id = ${id} and deleted_at is null for update`
    if (!locked) throw problems.projectNotFound({ project: name })
    const rows = await tx.projectMetadata.findMany({ where: { projectId: id } })
    const metadata = Object.fromEntries(rows.map((row) => [row.name, row.value]))
    const fields = await change(tx, { pullThrough: locked.registry_id !== null, metadata })
    if (fields.length === 0) return
    await tx.project.update({ where: { id }, data: { updatedAt: new Date() } })
    await emit(tx, ProjectUpdatedSchema, source, { project: { id: BigInt(id), name }, fields })
  })
  directory.forget()
}

async function writeMetadata(tx: Transaction, projectId: number, metadata: Record<string, string>) {
  for (const [name, value] of Object.entries(metadata)) {
    await tx.projectMetadata.upsert({
      where: { projectId_name: { projectId, name } },
      create: { projectId, name, value },
      update: { value },
    })
  }
}
