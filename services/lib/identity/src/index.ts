export { Authorities } from './authorities.ts'
export { Authority } from './authority.ts'
export type { GrantFacts, HeldGrant, RoleFacts } from './authority.ts'
export { decide } from './decide.ts'
export type { ProjectTarget, Question, Reason, ReasonCode, Verdict } from './decide.ts'
export { maxPatternLength, parsePathPattern } from './path-pattern.ts'
export type { PathPattern } from './path-pattern.ts'
export {
  anyAction,
  anyResource,
  catalogueResource,
  grantedResource,
  isPublic,
  permissionsOf,
  projectPermissions,
  projectRoles,
  publicPermissions,
  robotCatalogue,
  roles,
  scannerPull,
  self,
  systemPermissions,
} from './permissions.ts'
export type { Permission, ProjectRoleName, RoleName } from './permissions.ts'
export { ensurePresets } from './presets.ts'
export { anonymous, nameOf } from './principal.ts'
export type { Principal, ProjectNode } from './principal.ts'
