export type { CveAllowlistInput } from './allowlist.ts'
export { createProject, ensureLibrary, type NewProject } from './create-project.ts'
export { deleteProject, notDeletable, type DeleteDeps } from './delete-project.ts'
export type { ProjectDeps } from './deps.ts'
export { projectFigures, type ProjectFigures } from './figures.ts'
export { ProjectDirectory, type ImmutableRuleFacts, type ProjectFacts, type ProjectNode } from './directory.ts'
export {
  createImmutableRule,
  deleteImmutableRule,
  listImmutableRules,
  updateImmutableRule,
  type ImmutableRule,
  type RuleText,
} from './immutable-rules.ts'
export { protectionOf, type Protection } from './immutable-tags.ts'
export { holdProject, holdProjects } from './hold-project.ts'
export {
  createLabel,
  deleteLabel,
  findLabel,
  findLabels,
  labelIdsByName,
  holdLabel,
  listLabels,
  updateLabel,
  type Label,
  type LabelText,
} from './labels.ts'
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
export { projectsThrough } from './pull-through.ts'
export {
  changeQuotaLimit,
  charge,
  foldQuotas,
  listQuotas,
  UNLIMITED,
  usage,
  type QuotaDetails,
  type QuotaUsage,
} from './quotas.ts'
export { addMetadatum, removeMetadatum, setMetadatum, updateProject } from './update-project.ts'
export { putSystemAllowlist, readSystemAllowlist } from './system-allowlist.ts'
export { projectIdsByVisibility, projectNodes, projectsToSearch } from './visible-projects.ts'
