import { catalogueResource, type RobotFacts, type RobotPermission, type RobotUse } from '@haven/identity'
import type { HarborSchemas, HavenSchemas } from '@haven/proto'
import { time } from './time.ts'

/** Ids of the projects that robots name in their permissions. */
export const projectIdsIn = (robots: readonly RobotFacts[]): number[] => [
  ...new Set(
    robots.flatMap(({ permissions }) => permissions.flatMap(({ scope }) => (typeof scope === 'number' ? [scope] : []))),
  ),
]

/** As Harbor shows it: without its secret, which nobody is told twice. */
export const presentRobot = (
  robot: RobotFacts,
  { prefix, projectNames }: { prefix: string; projectNames: ReadonlyMap<number, string> },
): HarborSchemas['Robot'] => ({
  id: robot.id,
  name: prefix + robot.name,
  ...(robot.description && { description: robot.description }),
  level: robot.projectId === null ? 'system' : 'project',
  duration: robot.durationDays,
  editable: robot.editable,
  disable: robot.disabled,
  expires_at: robot.expiresAtSeconds,
  permissions: robot.permissions.map((permission) => presentPermission(permission, projectNames)),
  creator_type: robot.creator.kind,
  creator_ref: robot.creator.id,
  creation_time: time(robot.createdAt),
  update_time: time(robot.updatedAt),
})

function presentPermission(
  { scope, access }: RobotPermission,
  projectNames: ReadonlyMap<number, string>,
): HarborSchemas['RobotPermission'] {
  const kind = scope === 'system' ? 'system' : 'project'
  const namespace = scope === 'system' ? '/' : scope === 'every-project' ? '*' : (projectNames.get(scope) ?? '')
  return {
    kind,
    namespace,
    access: access.map(({ resource, action, effect, effectGiven }) => ({
      resource: catalogueResource(kind, resource),
      action,
      ...(effectGiven && { effect }),
    })),
  }
}

export const presentRobotUse = (
  { id, name, state, lastUsedAt, address, agent }: RobotUse,
  prefix: string,
): HavenSchemas['RobotUse'] => ({
  id,
  name: prefix + name,
  state,
  ...(lastUsedAt && { lastUsedAt: time(lastUsedAt) }),
  ...(address && { address }),
  ...(agent && { agent }),
})
