import type { Handlers } from '../handler.ts'
import { allowlistHandlers } from './allowlist.ts'
import { artifactHandlers, iconHandlers } from './artifact.ts'
import { auditHandlers } from './audit.ts'
import { bulkHandlers } from './bulk.ts'
import { configurationHandlers } from './configuration.ts'
import { eventHandlers } from './events.ts'
import { explainHandlers } from './explain.ts'
import { gcHandlers } from './gc.ts'
import { healthHandlers } from './health.ts'
import { immutableHandlers } from './immutable.ts'
import { inventoryHandlers } from './inventory.ts'
import { jobserviceHandlers, scheduleHandlers } from './jobs.ts'
import { labelHandlers } from './label.ts'
import { ldapHandlers } from './ldap.ts'
import { logHandlers } from './logs.ts'
import { memberHandlers } from './member.ts'
import { oidcHandlers } from './oidc.ts'
import { projectHandlers, projectMetadataHandlers } from './project.ts'
import { purgeHandlers } from './purge.ts'
import { repositoryHandlers } from './repository.ts'
import { robotHandlers } from './robot.ts'
import { quotaHandlers } from './quota.ts'
import { registryHandlers } from './registry.ts'
import { searchHandlers } from './search.ts'
import { statisticHandlers } from './statistic.ts'
import { systemHandlers } from './system.ts'
import { permissionsHandlers, userHandlers } from './user.ts'
import { usergroupHandlers } from './usergroup.ts'

/** Every operation that is served. What is missing here is listed in test/api/not-yet.txt. */
export const handlers: Handlers = {
  ...healthHandlers,
  ...systemHandlers,
  ...statisticHandlers,
  ...searchHandlers,
  ...allowlistHandlers,
  ...registryHandlers,
  ...configurationHandlers,
  ...projectHandlers,
  ...projectMetadataHandlers,
  ...memberHandlers,
  ...userHandlers,
  ...permissionsHandlers,
  ...usergroupHandlers,
  ...ldapHandlers,
  ...oidcHandlers,
  ...robotHandlers,
  ...repositoryHandlers,
  ...artifactHandlers,
  ...iconHandlers,
  ...inventoryHandlers,
  ...labelHandlers,
  ...immutableHandlers,
  ...quotaHandlers,
  ...gcHandlers,
  ...auditHandlers,
  ...purgeHandlers,
  ...jobserviceHandlers,
  ...scheduleHandlers,
  ...bulkHandlers,
  ...eventHandlers,
  ...explainHandlers,
  ...logHandlers,
}
