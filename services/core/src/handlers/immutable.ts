import { problems } from '@haven/errors'
import {
  createImmutableRule,
  deleteImmutableRule,
  listImmutableRules,
  updateImmutableRule,
  type ImmutableRule,
  type RuleText,
} from '@haven/projects'
import type { BodyOf, HarborSchemas } from '@haven/proto'
import type { Handlers } from '../handler.ts'
import { created, ok } from '../http/answer.ts'
import { listAnswer, pageOf } from '../lists/page.ts'
import { parseQ, parseSort } from '../lists/query.ts'

export const immutableHandlers: Handlers = {
  async ListImmuRules({ project, query, at }, deps) {
    const { total, rules } = await listImmutableRules(deps, project.id, {
      conditions: parseQ(query.q),
      sort: parseSort(query.sort),
      page: pageOf(query),
    })
    return listAnswer(at, query, total, rules.map(present))
  },

  async CreateImmuRule({ project, body, caller, at }, deps) {
    const id = await createImmutableRule(deps, caller.source, project, ruleOf(body))
    return created(`${at.path.replace(/\/$/, '')}/${id}`)
  },

  async UpdateImmuRule({ project, path, body, caller }, deps) {
    if (body.id !== path.immutable_rule_id) {
      throw problems.badRequest({ message: `the id of the body must be that of the path, ${path.immutable_rule_id}` })
    }
    await updateImmutableRule(deps, caller.source, project, path.immutable_rule_id, ruleOf(body))
    return ok()
  },

  async DeleteImmuRule({ project, path, caller }, deps) {
    await deleteImmutableRule(deps, caller.source, project, path.immutable_rule_id)
    return ok()
  },
}

function ruleOf(body: BodyOf<'CreateImmuRule'>): { rule: RuleText; disabled: boolean } {
  const { priority, action, template, params, tag_selectors, scope_selectors } = body
  const given = { priority, action, template, params, tag_selectors, scope_selectors }
  const rule = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined))
  return { rule, disabled: body.disabled ?? false }
}

const present = ({ id, disabled, rule }: ImmutableRule): HarborSchemas['ImmutableRule'] => {
  const { tag_selectors: tags, ...more } = rule
  return { id, ...(disabled && { disabled }), tag_selectors: tags ?? null, ...more } as HarborSchemas['ImmutableRule']
}
