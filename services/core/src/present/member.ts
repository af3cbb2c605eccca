import { roles, type MemberFacts } from '@haven/identity'
import type { HarborSchemas } from '@haven/proto'

const roleNames = new Map<number, string>(Object.entries(roles).map(([name, role]) => [role.id, name]))

export const presentMember = (member: MemberFacts): HarborSchemas['ProjectMemberEntity'] => ({
  id: member.id,
  project_id: member.projectId,
  entity_id: member.memberId,
  entity_name: member.name,
  entity_type: member.kind === 'user' ? 'u' : 'g',
  role_id: member.roleId,
  role_name: roleNames.get(member.roleId) ?? String(member.roleId),
})
