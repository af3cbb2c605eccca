/** How the values of a key look. `parse` gets what the contract let through and answers the value, or null when it cannot be. */
export type Kind<T> = {
  readonly parse: (given: unknown) => T | null
  /** The API shows it as JSON text. */
  readonly isMap?: boolean
  /** Sealed at rest, never shown. */
  readonly isSecret?: boolean
}

export const text: Kind<string> = { parse: (given) => (typeof given === 'string' ? given : null) }

export const secret: Kind<string> = { ...text, isSecret: true }

/** Blank is refused; what surrounds it is cut off. */
export const nonEmptyText: Kind<string> = {
  parse: (given) => (typeof given === 'string' && given.trim() !== '' ? given.trim() : null),
}

export const bool: Kind<boolean> = { parse: (given) => (typeof given === 'boolean' ? given : null) }

export const int = ({ min = -Infinity, max = Infinity }: { min?: number; max?: number } = {}): Kind<number> => ({
  parse: (given) =>
    Number.isSafeInteger(given) && Number(given) >= min && Number(given) <= max ? Number(given) : null,
})

export const word = <const W extends string>(...words: W[]): Kind<W> => ({
  parse: (given) => words.find((one) => one === given) ?? null,
})

/** One of a few numbers. */
export const number = <const N extends number>(...numbers: N[]): Kind<N> => ({
  parse: (given) => numbers.find((one) => one === given) ?? null,
})

/** A JSON object of texts, given as an object or as its text. */
export const textMap: Kind<Record<string, string>> = {
  isMap: true,
  parse(given) {
    const object = typeof given === 'string' ? parseJson(given === '' ? '{}' : given) : given
    if (typeof object !== 'object' || object === null || Array.isArray(object)) return null
    return Object.values(object).every((value) => typeof value === 'string') ? (object as Record<string, string>) : null
  },
}

function parseJson(given: string): unknown {
  try {
    return JSON.parse(given)
  } catch {
    return null
  }
}
