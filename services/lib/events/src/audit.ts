import {
  ArtifactDeletedSchema,
  ArtifactLabelledSchema,
  ArtifactPulledSchema,
  ArtifactPushedSchema,
  ArtifactUnlabelledSchema,
  ChangeRefusedSchema,
  ConfigurationChangedSchema,
  Door,
  GroupCreatedSchema,
  GroupDeletedSchema,
  GroupRenamedSchema,
  LabelCreatedSchema,
  LabelDeletedSchema,
  LabelUpdatedSchema,
  MemberAddedSchema,
  MemberKind,
  MemberRemovedSchema,
  MemberUpdatedSchema,
  ProjectCreatedSchema,
  ProjectDeletedSchema,
  ProjectUpdatedSchema,
  RegistryCreatedSchema,
  RegistryDeletedSchema,
  RegistryUpdatedSchema,
  RepositoryDeletedSchema,
  RepositoryUpdatedSchema,
  RobotCreatedSchema,
  RobotDeletedSchema,
  RobotRefusal,
  RobotSecretRefreshedSchema,
  RobotSignInRefusedSchema,
  RobotUpdatedSchema,
  SigningKeyRotatedSchema,
  TagDeletedSchema,
  TagMovedSchema,
  UserCreatedSchema,
  UserDeletedSchema,
  UserPasswordChangedSchema,
  UserSignedInSchema,
  UserSignedOutSchema,
  UserSysadminChangedSchema,
  UserUpdatedSchema,
  type ArtifactRef,
  type Membership,
  type RepositoryRef,
} from '@haven/proto/events'
import type { DescMessage, MessageShape } from '@bufbuild/protobuf'
import type { RecordedEvent } from './dispatcher.ts'

/** One line of the audit log. Operation and resource type join to Harbor's event type (`create_artifact`). */
export type AuditLine = {
  operation: 'create' | 'delete' | 'update' | 'pull' | 'login' | 'logout'
  resourceType:
    | 'artifact'
    | 'tag'
    | 'repository'
    | 'project'
    | 'member'
    | 'user'
    | 'robot'
    | 'group'
    | 'label'
    | 'registry'
    | 'configuration'
  resource: string
  description: string
  success?: boolean
}

type Describe = (message: never) => AuditLine | null
const lines = new Map<string, Describe>()
const audited = <Schema extends DescMessage>(schema: Schema, describe: (m: MessageShape<Schema>) => AuditLine | null) =>
  lines.set(schema.typeName, describe)

const at = (repository: RepositoryRef | undefined, artifact: ArtifactRef | undefined, tag?: string) =>
  tag ? `${repository?.name}:${tag}` : `${repository?.name}@${artifact?.digest}`
const line = (
  operation: AuditLine['operation'],
  resourceType: AuditLine['resourceType'],
  resource: string,
  description = `${operation} ${resourceType} ${resource}`,
): AuditLine => ({ operation, resourceType, resource, description })

audited(ArtifactPushedSchema, (m) => {
  const resource = at(m.repository, m.artifact, m.tag)
  return line('create', 'artifact', resource, `push artifact ${resource}`)
})
audited(ArtifactPulledSchema, (m) => {
  const resource = at(m.repository, m.artifact, m.tag)
  const times = m.pulls > 1 ? ` (${m.pulls} times)` : ''
  return line('pull', 'artifact', resource, `pull artifact ${resource}${times}`)
})
audited(ArtifactDeletedSchema, (m) => line('delete', 'artifact', at(m.repository, m.artifact, m.tags[0])))
// Of a push the artifact's line tells; only a tag that the platform API made has one of its own.
audited(TagMovedSchema, (m) => (m.door === Door.API ? line('create', 'tag', at(m.repository, undefined, m.tag)) : null))
audited(TagDeletedSchema, (m) => line('delete', 'tag', at(m.repository, undefined, m.tag)))
audited(ArtifactLabelledSchema, (m) => {
  const resource = at(m.repository, m.artifact)
  return line('update', 'artifact', resource, `add label ${m.label?.name} to artifact ${resource}`)
})
audited(ArtifactUnlabelledSchema, (m) => {
  const resource = at(m.repository, m.artifact)
  return line('update', 'artifact', resource, `remove label ${m.label?.name} from artifact ${resource}`)
})
audited(RepositoryUpdatedSchema, (m) => line('update', 'repository', m.repository?.name ?? ''))
audited(RepositoryDeletedSchema, (m) => line('delete', 'repository', m.repository?.name ?? ''))

audited(ProjectCreatedSchema, (m) => line('create', 'project', m.project?.name ?? ''))
audited(ProjectUpdatedSchema, (m) => line('update', 'project', m.project?.name ?? ''))
audited(ProjectDeletedSchema, (m) => line('delete', 'project', m.project?.name ?? ''))

audited(LabelCreatedSchema, (m) => line('create', 'label', m.label?.name ?? ''))
audited(LabelUpdatedSchema, (m) => line('update', 'label', m.label?.name ?? ''))
audited(LabelDeletedSchema, (m) => line('delete', 'label', m.label?.name ?? ''))

audited(RegistryCreatedSchema, (m) => line('create', 'registry', m.registry?.name ?? ''))
audited(RegistryUpdatedSchema, (m) => {
  const name = m.registry?.name ?? ''
  return line('update', 'registry', name, `update registry ${name}: ${m.fields.join(', ')}`)
})
audited(RegistryDeletedSchema, (m) => line('delete', 'registry', m.registry?.name ?? ''))

audited(MemberAddedSchema, (m) => memberLine('create', m.membership))
audited(MemberUpdatedSchema, (m) => memberLine('update', m.membership))
audited(MemberRemovedSchema, (m) => memberLine('delete', m.membership))
function memberLine(operation: 'create' | 'update' | 'delete', m: Membership | undefined) {
  const kind = m?.kind === MemberKind.GROUP ? 'group' : 'user'
  const description = `${operation} ${kind} member ${m?.memberName} in project ${m?.project?.name}`
  return line(operation, 'member', `${kind}:${m?.memberName}`, description)
}

audited(UserCreatedSchema, (m) => line('create', 'user', m.user?.name ?? ''))
audited(UserUpdatedSchema, (m) => line('update', 'user', m.user?.name ?? ''))
audited(UserDeletedSchema, (m) => line('delete', 'user', m.user?.name ?? ''))
audited(UserPasswordChangedSchema, (m) => {
  const name = m.user?.name ?? ''
  return line('update', 'user', name, `change password of user ${name}`)
})
audited(UserSysadminChangedSchema, (m) => {
  const name = m.user?.name ?? ''
  const change = m.sysadmin ? 'make system administrator' : 'make ordinary user'
  return line('update', 'user', name, `${change}: ${name}`)
})
audited(UserSignedInSchema, (m) => ({
  ...line('login', 'user', m.user?.name ?? '', m.reason === '' ? 'login' : `login: ${m.reason}`),
  success: m.succeeded,
}))
audited(UserSignedOutSchema, (m) => line('logout', 'user', m.user?.name ?? '', 'logout'))

audited(GroupCreatedSchema, (m) => line('create', 'group', m.group?.name ?? ''))
audited(GroupRenamedSchema, (m) => {
  const name = m.group?.name ?? ''
  return line('update', 'group', name, `rename group ${m.previousName} to ${name}`)
})
audited(GroupDeletedSchema, (m) => line('delete', 'group', m.group?.name ?? ''))

audited(RobotCreatedSchema, (m) => line('create', 'robot', m.robot?.name ?? ''))
audited(RobotUpdatedSchema, (m) => {
  const name = m.robot?.name ?? ''
  return line('update', 'robot', name, `update robot ${name}: ${m.fields.join(', ')}`)
})
audited(RobotSecretRefreshedSchema, (m) => {
  const name = m.robot?.name ?? ''
  return line('update', 'robot', name, `refresh secret of robot ${name}`)
})
audited(RobotDeletedSchema, (m) => line('delete', 'robot', m.robot?.name ?? ''))
const refusals: Readonly<Record<RobotRefusal, string>> = {
  [RobotRefusal.UNSPECIFIED]: 'refused',
  [RobotRefusal.WRONG_SECRET]: 'the secret was wrong',
  [RobotRefusal.DISABLED]: 'the robot is disabled',
  [RobotRefusal.EXPIRED]: 'the robot is expired',
}
audited(RobotSignInRefusedSchema, (m) => ({
  ...line('login', 'robot', m.robot?.name ?? '', `login: ${refusals[m.reason]}`),
  success: false,
}))

audited(ConfigurationChangedSchema, (m) =>
  line('update', 'configuration', m.keys.join(','), `update configuration: ${m.keys.join(', ')}`),
)
// Harbor's resource types have none for keys.
audited(SigningKeyRotatedSchema, (m) =>
  line('update', 'configuration', 'token_signing_key', `rotate the key that signs tokens: ${m.kid}`),
)

audited(ChangeRefusedSchema, (m) => {
  const [operation, resourceType] = [m.operation, m.resourceType] as [AuditLine['operation'], AuditLine['resourceType']]
  const what = [operation, resourceType, m.resource].filter((word) => word !== '').join(' ')
  return { ...line(operation, resourceType, m.resource, `${what}: refused with ${m.status}`), success: false }
})

/** What the audit log says about an event; null when it says nothing. */
export function auditLine(event: RecordedEvent): AuditLine | null {
  return lines.get(event.type)?.(event.message as never) ?? null
}
