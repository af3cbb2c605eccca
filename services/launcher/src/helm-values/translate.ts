import { database, redis, store } from './backends.ts'
import { expose } from './expose.ts'
import { explainUnseen } from './not-ours.ts'
import { Overlay } from './overlay.ts'
import { authorities, monitoring, passwords, platform, traces } from './platform.ts'
import { HelmValues } from './values.ts'
import { volumes, workloads } from './workloads.ts'

type Places = { readonly base: string; readonly namespace: string }

/**
 * An overlay of deploy/kubernetes that does what a `values.yaml` of the chart harbor-helm asks for, where it can, and a finding for each key
 * where it cannot.
 * @throws Problem badUsage for values that are no YAML or have the wrong form.
 */
export function translate(text: string, { base, namespace }: Places): Overlay {
  const values = new HelmValues(text)
  const overlay = new Overlay(base, namespace)
  for (const part of [
    expose,
    store,
    database,
    redis,
    passwords,
    authorities,
    platform,
    workloads,
    volumes,
    monitoring,
    traces,
  ]) {
    part(values, overlay)
  }
  values.refuseWrong()
  overlay.findings.push(...explainUnseen(values))
  return overlay
}
