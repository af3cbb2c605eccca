/** What a problem is, whoever tells it: one status and one code for each API surface. */
export interface Kind {
  /** The catalogue's key (`manifestUnknown`): stable, so that a message can be translated by it together with the facts. */
  readonly name: string
  readonly status: number
  readonly oci: string
  readonly harbor: string
  /** Exit code of a process that cannot start or go on because of it. */
  readonly exitCode: number
}

export type Facts = Readonly<Record<string, unknown>>

/** One line of an error envelope. Most problems have one; a manifest with three missing blobs has three. */
export interface Entry {
  readonly message: string
  readonly facts: Facts
}

export interface ProblemOptions {
  readonly cause?: unknown
  /** Response headers beside those of the kind, such as `WWW-Authenticate` or `Location`. */
  readonly headers?: Readonly<Record<string, string>>
}

/** An error that a caller can understand and that is safe to show to one. Anything else thrown is a bug. */
export class Problem extends Error {
  readonly kind: Kind
  readonly facts: Facts
  readonly entries: readonly Entry[]
  readonly headers: Readonly<Record<string, string>>

  constructor(kind: Kind, entries: readonly [Entry, ...Entry[]], options: ProblemOptions & { facts?: Facts } = {}) {
    const message = entries.map((entry) => entry.message).join('; ')
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.name = 'Problem'
    this.kind = kind
    this.facts = options.facts ?? entries[0].facts
    this.entries = entries
    this.headers = options.headers ?? {}
  }

  get status(): number {
    return this.kind.status
  }
}

export interface KindInput {
  readonly status: number
  readonly oci?: string
  readonly harbor?: string
  readonly exitCode?: number
}

interface Rendering<F> {
  /** Headers that belong to the kind: `Retry-After` of a 429. */
  readonly headers?: (facts: F) => Record<string, string>
  /** For a kind that reports several things at once; the message is then that of an empty list. */
  readonly entries?: (facts: F) => Entry[]
}

type Arguments<F> =
  Record<never, never> extends F ? [facts?: F, options?: ProblemOptions] : [facts: F, options?: ProblemOptions]

/** Makes a problem of one kind: `throw problems.manifestUnknown({ repository, reference })`. */
export interface Define<F> {
  (...given: Arguments<F>): Problem
  readonly kind: Kind
  /** True for a problem of this kind, and only then. */
  is(error: unknown): error is Problem
}

/**
 * Declares a kind of problem. A code that is not given follows from the status. The facts are shown to the client: no
 * secrets, no paths of this machine.
 */
export function define<F extends object>(
  input: KindInput,
  message: (facts: F) => string,
  rendering: Rendering<F> = {},
): Define<F> {
  const kind = {
    name: 'unnamed',
    status: input.status,
    oci: input.oci ?? ociCodes[input.status] ?? (input.status < 500 ? 'UNSUPPORTED' : 'UNKNOWN'),
    harbor: input.harbor ?? harborCodes[input.status] ?? (input.status < 500 ? 'BAD_REQUEST' : 'UNKNOWN'),
    exitCode: input.exitCode ?? 1,
  }
  const make = (...[given, options]: Arguments<F>): Problem => {
    const facts = (given ?? {}) as F
    const shown = { ...facts } as Facts
    const [first = { message: message(facts), facts: shown }, ...rest] = rendering.entries?.(facts) ?? []
    return new Problem(kind, [first, ...rest], {
      ...options,
      facts: shown,
      headers: { ...rendering.headers?.(facts), ...options?.headers },
    })
  }
  return Object.assign(make, {
    kind,
    is: (error: unknown): error is Problem => error instanceof Problem && error.kind === kind,
  })
}

/** Gives each kind of a catalogue its key as name. */
export function catalogue<C extends Record<string, { readonly kind: Kind }>>(kinds: C): Readonly<C> {
  for (const [name, made] of Object.entries(kinds)) Object.assign(made.kind, { name })
  return Object.freeze(kinds)
}

// Harbor's table of codes and statuses (harbor-api.md §1).
const harborCodes: Record<number, string> = {
  400: 'BAD_REQUEST',
  401: 'UNAUTHORIZED',
  403: 'FORBIDDEN',
  404: 'NOT_FOUND',
  405: 'METHOD_NOT_ALLOWED',
  409: 'CONFLICT',
  412: 'PRECONDITION',
  413: 'REQUEST_ENTITY_TOO_LARGE',
  422: 'UNPROCESSABLE_ENTITY',
  429: 'TOO_MANY_REQUEST',
}

// OCI Distribution 1.1, "Error Codes"; where it has none for a status, the name that Harbor or Distribution uses.
const ociCodes: Record<number, string> = {
  400: 'UNSUPPORTED',
  401: 'UNAUTHORIZED',
  403: 'DENIED',
  404: 'NOT_FOUND',
  405: 'UNSUPPORTED',
  409: 'CONFLICT',
  412: 'PRECONDITION',
  413: 'SIZE_INVALID',
  416: 'RANGE_INVALID',
  429: 'TOOMANYREQUESTS',
  503: 'UNAVAILABLE',
}
