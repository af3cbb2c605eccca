import { problems } from '@haven/errors'
import { adminId, userNames } from '@haven/identity'
import { changeQuotaLimit, listQuotas, type QuotaDetails } from '@haven/projects'
import type { HarborSchemas } from '@haven/proto'
import type { CoreContext } from '../context.ts'
import type { Handlers } from '../handler.ts'
import { ok } from '../http/answer.ts'
import { listAnswer, pageOf } from '../lists/page.ts'
import { parseSort } from '../lists/query.ts'
import { time } from '../present/time.ts'

/** A quota has the id of its project. */
export const quotaHandlers: Handlers = {
  async listQuotas({ query, at }, deps) {
    const { reference, reference_id: referenceId } = query
    const id = referenceId === undefined ? undefined : Number(referenceId)
    const nothing = (reference !== undefined && reference !== 'project') || (id !== undefined && !isId(id))
    const { total, quotas } = nothing
      ? { total: 0, quotas: [] }
      : await listQuotas(deps.db, {
          ...(id !== undefined && { projectId: id }),
          sort: parseSort(query.sort),
          page: pageOf(query),
        })
    const owners = await userNames(deps, [...new Set(quotas.map((quota) => quota.ownerId))])
    return listAnswer(
      at,
      query,
      total,
      quotas.map((quota) => present(quota, owners)),
    )
  },

  async getQuota({ path }, deps) {
    const quota = await requireQuota(deps, path.id)
    return ok(present(quota, await userNames(deps, [quota.ownerId])))
  },

  async updateQuota({ path, body, caller }, deps) {
    const quota = await requireQuota(deps, path.id)
    const bytes = body.hard?.storage
    if (bytes === undefined) throw problems.badRequest({ message: 'hard.storage is missing' })
    await changeQuotaLimit(deps, caller.source, { id: quota.projectId, name: quota.projectName }, bytes)
    return ok()
  },
}

const isId = (id: number) => Number.isInteger(id) && id > 0 && id < 2 ** 31

async function requireQuota({ db }: CoreContext, id: number): Promise<QuotaDetails> {
  const { quotas } = isId(id) ? await listQuotas(db, { projectId: id, page: { number: 1, size: 1 } }) : { quotas: [] }
  const [quota] = quotas
  if (!quota) throw problems.notFound({ message: `quota ${id} not found` })
  return quota
}

/** As Harbor, no name stands for the first administrator. */
const present = (quota: QuotaDetails, owners: Map<number, string>): HarborSchemas['Quota'] => ({
  id: quota.projectId,
  ref: {
    id: quota.projectId,
    name: quota.projectName,
    owner_name: quota.ownerId === adminId ? '' : (owners.get(quota.ownerId) ?? ''),
  },
  hard: { storage: quota.hardBytes },
  used: { storage: quota.usedBytes },
  creation_time: time(quota.createdAt),
  update_time: time(quota.updatedAt),
})
