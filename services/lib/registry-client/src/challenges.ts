/** One way to be let in, as a server offers it. */
export type OfferedChallenge = {
  /** Lower case: `bearer`, `basic`. */
  readonly scheme: string
  /** Keys in lower case. Of one that comes twice the first counts. */
  readonly parameters: Readonly<Record<string, string>>
}

// RFC 9110, 11.6.1: `scheme [token68 | name=value, …]`, several in one value, told apart only by what follows a word.
const PART =
  /[\s,]*(?:([\w!#$%&'*+.^`|~-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*))|([\w!#$%&'*+.^`|~-]+)(?:[ \t]+[\w.~+/-]+=*(?=\s*(?:,|$)))?)/y

/** Reads `WWW-Authenticate`. What cannot be read ends the list. */
export function parseChallenges(header: string | undefined): readonly OfferedChallenge[] {
  const challenges: { scheme: string; parameters: Record<string, string> }[] = []
  const text = header ?? ''
  PART.lastIndex = 0
  for (let part = PART.exec(text); part !== null; part = PART.exec(text)) {
    const [, name, quoted, bare, scheme] = part
    if (scheme !== undefined) challenges.push({ scheme: scheme.toLowerCase(), parameters: Object.create(null) as {} })
    else if (name !== undefined) {
      const parameters = challenges.at(-1)?.parameters
      if (parameters === undefined) return []
      parameters[name.toLowerCase()] ??= quoted?.replaceAll(/\\(.)/g, '$1') ?? bare ?? ''
    }
  }
  return challenges
}
