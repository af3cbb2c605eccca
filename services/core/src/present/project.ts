import type { ProjectDetails } from '@haven/projects'
import type { HarborSchemas } from '@haven/proto'
import { presentAllowlist } from './allowlist.ts'
import { NO_TIME, time } from './time.ts'

export type ProjectView = {
  project: ProjectDetails
  ownerName: string | undefined
  repositoryCount: number
  /** The caller's roles in it, strongest first. */
  roleIds: readonly number[]
}

export function presentProject({
  project,
  ownerName,
  repositoryCount,
  roleIds,
}: ProjectView): HarborSchemas['Project'] {
  return {
    ...presentProjectBriefly({ project, repositoryCount, roleIds }),
    cve_allowlist: {
      id: project.id,
      project_id: project.id,
      ...presentAllowlist(project.allowlist),
      creation_time: NO_TIME,
      update_time: NO_TIME,
    },
    metadata: project.metadata as HarborSchemas['Project']['metadata'],
    ...(ownerName !== undefined && { owner_name: ownerName }),
  } as HarborSchemas['Project']
}

/** As lists show it that do not ask for details. */
export function presentProjectBriefly({
  project,
  repositoryCount,
  roleIds,
}: Omit<ProjectView, 'ownerName'>): HarborSchemas['Project'] {
  return {
    project_id: project.id,
    name: project.name,
    owner_id: project.ownerId,
    ...(project.registryId !== null && { registry_id: project.registryId }),
    creation_time: time(project.createdAt),
    update_time: time(project.updatedAt),
    repo_count: repositoryCount,
    ...(roleIds[0] !== undefined && { current_user_role_id: roleIds[0] }),
    current_user_role_ids: roleIds.length === 0 ? null : [...roleIds],
    cve_allowlist: { items: null, creation_time: NO_TIME, update_time: NO_TIME },
  }
}
