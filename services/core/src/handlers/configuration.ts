import { problems } from '@haven/errors'
import { checkForwardEndpoint } from '@haven/events'
import { hasPeople } from '@haven/identity'
import { changeSettings, keys, parseSettings, type SettingName, type SettingValues } from '@haven/settings'
import type { Handlers } from '../handler.ts'
import { ok } from '../http/answer.ts'

/** Keys that Harbor's contract does not have: only the environment sets them. */
const inNoContract = new Set<SettingName>([
  'pull_time_update_disable',
  'pull_count_update_disable',
  'pull_audit_log_disable',
])

export const configurationHandlers: Handlers = {
  async getConfigurations(_call, deps) {
    const values = await deps.settings.read()
    const editable = !deps.settingsAreFixed
    const modeIsOpen = editable && !(await hasPeople(deps.db.prisma))
    const items = shown(values)
      .filter(([name]) => !inNoContract.has(name))
      .map(([name, value]) => [name, { value, editable: name === 'auth_mode' ? modeIsOpen : editable }])
    return ok({ ...Object.fromEntries(items), scan_all_policy: {} })
  },

  /** For our own services: what is secret is opened. */
  async getInternalconfig(_call, { settings, settingsAreFixed }) {
    const entries = Object.entries(await settings.read())
    return ok(Object.fromEntries(entries.map(([name, value]) => [name, { value, editable: !settingsAreFixed }])))
  },

  async updateConfigurations({ body, caller }, deps) {
    if (deps.settingsAreFixed) {
      throw problems.forbidden({
        message: 'the configuration is set by CONFIG_OVERWRITE_JSON and cannot be changed here',
      })
    }
    const given = Object.fromEntries(Object.entries(body).filter(([name]) => !inNoContract.has(name as SettingName)))
    const now = await deps.settings.read()
    const mode = given.auth_mode
    // Before its value is looked at, as in Harbor: with people there, no other mode will do.
    if (mode !== undefined && mode !== now.auth_mode && (await hasPeople(deps.db.prisma))) {
      throw problems.badRequest({
        message: 'auth_mode cannot be changed while there are users beside the administrator',
      })
    }
    const change = parseSettings(given, now)
    if (change.audit_log_forward_endpoint && change.audit_log_forward_endpoint !== now.audit_log_forward_endpoint) {
      await checkForwardEndpoint(deps.outbound, change.audit_log_forward_endpoint)
    }
    await changeSettings(deps, caller.source, change)
    return ok()
  },
}

/** Without secrets; maps as JSON text. */
const shown = (values: SettingValues): [SettingName, unknown][] =>
  (Object.entries(values) as [SettingName, unknown][])
    .filter(([name]) => !keys[name].kind.isSecret)
    .map(([name, value]) => [name, keys[name].kind.isMap ? JSON.stringify(value) : value])
