import { putSystemAllowlist, readSystemAllowlist } from '@haven/projects'
import type { Handlers } from '../handler.ts'
import { ok } from '../http/answer.ts'
import { allowlistOf, presentAllowlist } from '../present/allowlist.ts'
import { time } from '../present/time.ts'

export const allowlistHandlers: Handlers = {
  async getSystemCVEAllowlist(_call, deps) {
    const list = await readSystemAllowlist(deps)
    return ok({
      ...presentAllowlist(list),
      creation_time: time(list.createdAt),
      update_time: time(list.updatedAt),
    })
  },

  async putSystemCVEAllowlist({ body, caller }, deps) {
    await putSystemAllowlist(deps, caller.source, allowlistOf(body ?? {}))
    return ok()
  },
}
