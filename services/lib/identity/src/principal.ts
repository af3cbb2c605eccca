/** Who is calling. Says nothing about rights: those are read live (`Authorities`). */
export type Principal =
  | { readonly kind: 'anonymous' }
  | { readonly kind: 'user'; readonly id: number; readonly name: string }
  /** `name` with the configured prefix, as the client sends it; `projectId` null for a system robot. */
  | { readonly kind: 'robot'; readonly id: number; readonly name: string; readonly projectId: number | null }
  /** One of our own processes, proved by its secret. */
  | { readonly kind: 'service'; readonly name: string }

/** Whose rights can be asked after: a group never calls, but its grants are its members'. */
export type Subject = Principal | { readonly kind: 'group'; readonly id: number; readonly name: string }

/** What deciding needs to know of a project. */
export type ProjectNode = {
  readonly id: number
  readonly name: string
  readonly public: boolean
  readonly createdAt: Date
}

export const anonymous: Principal = Object.freeze({ kind: 'anonymous' })

/** The name that logs, audit and token subjects show; empty for nobody. */
export function nameOf(principal: Subject): string {
  return principal.kind === 'anonymous' ? '' : principal.name
}
