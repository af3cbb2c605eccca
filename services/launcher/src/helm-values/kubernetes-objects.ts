import type { Tree } from './values.ts'

/** A patch of the pods of a Deployment. */
export const podOf = (name: string, spec: Tree): Tree => ({
  apiVersion: 'apps/v1',
  kind: 'Deployment',
  metadata: { name },
  spec: { template: { spec } },
})

/** The value of a variable that is in a Secret. */
export const fromSecret = (name: string, key: string): Tree => ({ valueFrom: { secretKeyRef: { name, key } } })

/** A key, unless there is nothing to say. */
export const given = (key: string, value: unknown): Tree => (value === undefined ? {} : { [key]: value })
