export { parseAllowlist, type CveAllowlistInput } from './allowlist.ts'
export { createProject, ensureLibrary, type NewProject } from './create-project.ts'
export { deleteProject, notDeletable, type DeleteDeps } from './delete-project.ts'
export type { ProjectDeps } from './deps.ts'
export { ProjectDirectory, type ImmutableRuleFacts, type ProjectFacts, type ProjectNode } from './directory.ts'
export {
  conditionsToSql,
  escapeLike,
  orderToSql,
  pageToSql,
  type Condition,
  type Field,
  type Fields,
  type Page,
  type Scalar,
  type Sort,
} from './filters.ts'
export { protectionOf, type Protection } from './immutable-tags.ts'
export { holdProject } from './hold-project.ts'
export { listProjects, projectNames, readProject, type ProjectDetails, type ProjectQuery } from './list-projects.ts'
export {
  addMember,
  changeMember,
  countMembers,
  findMember,
  listMembers,
  removeMember,
  type NewMember,
} from './members.ts'
export {
  charge,
  foldQuotas,
  MAX_QUOTA_BYTES,
  parseQuotaLimit,
  setQuotaLimit,
  UNLIMITED,
  usage,
  type QuotaUsage,
} from './quotas.ts'
export { addMetadatum, removeMetadatum, setMetadatum, updateProject } from './update-project.ts'
