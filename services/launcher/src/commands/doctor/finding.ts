/** Something that is wrong, or will be. */
export type Finding = {
  /** For scripts; stays what it is: `redis.evicts`. */
  readonly id: string
  /** failure: something does not work, or what was acknowledged may be lost. warning: it works, and will not for ever or not for everybody. */
  readonly severity: 'failure' | 'warning'
  readonly what: string
  readonly todo: string
}

/** One thing that was looked at: what there is to say of it, and what is wrong with it. */
export type Look = { readonly at: string; readonly said: string; readonly findings: readonly Finding[] }

export const failure = (id: string, what: string, todo: string): Finding => ({ id, severity: 'failure', what, todo })
export const warning = (id: string, what: string, todo: string): Finding => ({ id, severity: 'warning', what, todo })

/** What a failed call says of itself, with the reason underneath where that is all there is. */
export function reasonOf(error: unknown): string {
  const { message = '', code = '', cause } = (error ?? {}) as { message?: string; code?: string; cause?: unknown }
  if (message !== '' && message !== 'fetch failed') return message.split('\n')[0]!
  return cause === undefined ? code || 'no reason was given' : reasonOf(cause)
}
