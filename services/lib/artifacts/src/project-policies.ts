import { charge, protectionOf, usage } from '@haven/projects'
import type { ArtifactPolicies, Verdict } from './deps.ts'

const allowed: Verdict = { allowed: true, reasons: [] }

/** The rules that a project carries: its quota, and which of its tags are immutable. */
export const projectPolicies: ArtifactPolicies = {
  quota: charge,
  quotaUsage: usage,
  immutability({ project, repository }, tag, change) {
    const rule = protectionOf(project.immutableRules, { repository, tag }, change)
    if (!rule) return allowed
    const message = `rule ${rule.ruleId} protects the tags ${rule.tags} of the repositories ${rule.repositories}`
    return { allowed: false, reasons: [{ message }] }
  },
}
