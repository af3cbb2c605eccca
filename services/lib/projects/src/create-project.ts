import { isUniqueViolation, statement } from '@haven/db'
import { problems } from '@haven/errors'
import { emit, type EventSource } from '@haven/events'
import { memberGrants, roles } from '@haven/identity'
import { maxNameLength, parseProjectName } from '@haven/oci'
import { ProjectCreatedSchema } from '@haven/proto/events'
import { parseAllowlist, type CveAllowlistInput } from './allowlist.ts'
import type { ProjectDeps } from './deps.ts'
import { parseMetadata } from './metadata.ts'
import { parseQuotaLimit, UNLIMITED } from './quotas.ts'

const insertProject = statement<{ id: number }>(
  'project created',
  `with project as (
     insert into projects.projects (name, name_key, owner_id, registry_id) values ($1, $1, $2, $3) returning id),
   metadata as (
     insert into projects.project_metadata (project_id, name, value)
     select id, key, value from project, jsonb_each_text($4::jsonb)),
   quota as (insert into projects.quotas (project_id, hard_bytes) select id, $5 from project),
   allowlist as (insert into projects.cve_allowlists (project_id, items, expires_at) select id, $6::jsonb, $7 from project)
   select id from project`,
)
// A new project takes a name over from whoever gave it up.
const forgetAlias = statement('project takes a name', 'delete from projects.project_aliases where name = $1')
const someProject = statement<{ id: number }>('project exists', 'select id from projects.projects limit 1')

export type NewProject = {
  name: string
  ownerId: number
  /** As it was sent; private unless it says otherwise. */
  metadata?: Readonly<Record<string, unknown>>
  cveAllowlist?: CveAllowlistInput
  /** Absent or 0: the installation's default, `defaultQuotaBytes`. */
  quotaBytes?: number
  defaultQuotaBytes?: number
  /** Makes it a pull-through project of this remote registry. */
  registryId?: number | null
}

/**
 * Makes a project with its quota; its owner becomes its administrator.
 * @throws badRequest for a name, setting or size that cannot be; conflict when the name is taken.
 */
export async function createProject(
  deps: ProjectDeps,
  source: EventSource,
  input: NewProject,
): Promise<{ id: number; name: string }> {
  const name = requireName(input.name)
  const registryId = input.registryId ?? null
  if (input.metadata?.retention_id) {
    throw problems.badRequest({ message: 'retention_id cannot be set when a project is created' })
  }
  const metadata = { public: 'false', ...parseMetadata(input.metadata ?? {}, { pullThrough: registryId !== null }) }
  const hardBytes = input.quotaBytes ? parseQuotaLimit(input.quotaBytes) : (input.defaultQuotaBytes ?? UNLIMITED)
  const allowlist = parseAllowlist(input.cveAllowlist ?? { items: [], expiresAt: null })

  const created = await deps.db
    .transaction(async (tx) => {
      const items = JSON.stringify(allowlist.items)
      const values = [name, input.ownerId, registryId, JSON.stringify(metadata), hardBytes, items, allowlist.expiresAt]
      const { id } = (await tx.one(insertProject, values))!
      await tx.rows(forgetAlias, [name])
      const member = { projectId: id, kind: 'user', memberId: input.ownerId, roleId: roles.projectAdmin.id } as const
      await memberGrants.add(tx, member)
      await emit(tx, ProjectCreatedSchema, source, { project: { id: BigInt(id), name } })
      return { id, name }
    })
    .catch((error: unknown) => {
      throw isUniqueViolation(error)
        ? problems.conflict({ message: `The project named ${name} already exists` })
        : error
    })
  deps.directory.forget()
  return created
}

function requireName(name: string): string {
  if (name.length < 1 || name.length > maxNameLength) {
    throw problems.badRequest({
      message: `Project name ${name} is illegal in length. (greater than 255 or less than 1)`,
    })
  }
  const parsed = parseProjectName(name)
  if (!parsed) {
    throw problems.badRequest({ message: 'project name is not in lower case or contains illegal characters' })
  }
  return parsed
}

/** The public project that every installation starts with. Does nothing where any project was ever made. */
export async function ensureLibrary(deps: ProjectDeps, { ownerId }: { ownerId: number }): Promise<void> {
  if (await deps.db.reads.one(someProject, [])) return
  await createProject(
    deps,
    { principal: { kind: 'service', name: 'core' } },
    { name: 'library', ownerId, metadata: { public: 'true' } },
  ).catch((error: unknown) => {
    if (!problems.conflict.is(error)) throw error // another replica starts at the same time
  })
}
