export { adminGroupOf } from './admin-group.ts'
export { Authorities } from './authorities.ts'
export { isDn } from './directories/dn.ts'
export {
  findLdapGroup,
  findLdapGroups,
  findLdapUsers,
  ldapDirectoryOf,
  listLdapUsers,
  pingLdap,
  signInDirectory,
} from './directories/ldap.ts'
export type { LdapDirectory, LdapPerson } from './directories/ldap.ts'
export { LdapClient } from './directories/ldap-connection.ts'
export { OidcClient, oidcProviderOf } from './directories/oidc.ts'
export type { OidcChallenge, OidcPerson, OidcProvider, OidcTokens } from './directories/oidc.ts'
export {
  findOidcAccount,
  findOidcMeta,
  findOidcTokens,
  isProvedByOidc,
  proveIdToken,
  setCliSecret,
  signInByOidc,
} from './oidc-accounts.ts'
export type { OidcMeta } from './oidc-accounts.ts'
export type { Account } from './onboard.ts'
export { importLdapUsers, onboardLdapPerson } from './ldap-accounts.ts'
export {
  createGroup,
  deleteGroup,
  ensureGroup,
  findGroup,
  findGroupByDn,
  findGroupByName,
  listGroups,
  renameGroup,
} from './groups.ts'
export type { GroupFacts, NewGroup } from './groups.ts'
export { Authority } from './authority.ts'
export type { GrantFacts, HeldGrant, RoleFacts } from './authority.ts'
export { decide } from './decide.ts'
export type { ProjectTarget, Question, Reason, ReasonCode, Scope, Verdict } from './decide.ts'
export { explainDecision, isKnownPermission } from './explain-decision.ts'
export type { ExplainedDecision, ExplainedReason, Remedy } from './explain-decision.ts'
export {
  catalogueResource,
  grantedResource,
  isPublic,
  permissionsOf,
  projectPermissions,
  projectRoles,
  robotCatalogue,
  roles,
  self,
  systemPermissions,
} from './permissions.ts'
export type { Permission, ProjectRoleName, RoleName } from './permissions.ts'
export { ensurePresets } from './presets.ts'
export { anonymous, nameOf } from './principal.ts'
export type { Principal, ProjectNode } from './principal.ts'
export { nameKey } from './names.ts'
export { generateSecret, hashPassword, hashRobotSecret } from './passwords.ts'
export { findRobotByName, signIn, signInDeps } from './sign-in.ts'
export type { SignedIn, SignInDeps, SignInInput } from './sign-in.ts'
export { ensureSigningKey, rotateAgedSigningKey, rotateSigningKey, SigningKeys } from './signing-keys.ts'
export type { Sealer } from './signing-keys.ts'
export {
  createRobot,
  deleteRobot,
  findRobot,
  listRobots,
  refreshRobotSecret,
  requireRobotDuration,
  requireRobotName,
  robotUses,
  updateRobot,
} from './robots.ts'
export type { RobotFacts, RobotPermission, RobotUse } from './robots.ts'
export { hostBlock } from './throttle.ts'
export { tokenAllows, TokenIssuer, tokenService, TokenVerifier } from './tokens.ts'
export type { Access, TokenPrincipal, VerifiedToken } from './tokens.ts'
export { countMembers, forgetProject, memberGrants, requireProjectRole } from './member-grants.ts'
export type { MemberFacts } from './member-grants.ts'
export { Sessions } from './sessions.ts'
export type { Session } from './sessions.ts'
export {
  adminId,
  changePassword,
  createUser,
  deleteUser,
  ensureAdmin,
  findUser,
  findUserByName,
  hasPeople,
  isTaken,
  listUsers,
  ownerFor,
  setSysadmin,
  updateUser,
  userIdsNamed,
  userNames,
} from './users.ts'
export type { NewUser, UserDeps, UserFacts, UserQuery } from './users.ts'
