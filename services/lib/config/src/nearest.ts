/** The known name that a misspelled one most likely means: at most two typing errors away, or differing in `_` only. */
export function nearest(name: string, known: readonly string[]): string | undefined {
  const bare = (text: string) => text.replaceAll('_', '')
  const sameLetters = known.find((candidate) => bare(candidate) === bare(name))
  if (sameLetters !== undefined) return sameLetters
  const [best] = known
    .map((candidate) => ({ candidate, errors: typingErrors(name, candidate) }))
    .filter(({ errors }) => errors <= 2)
    .sort((a, b) => a.errors - b.errors)
  return best?.candidate
}

/** Letters added, left out, replaced or swapped with their neighbour (optimal string alignment). */
function typingErrors(a: string, b: string): number {
  if (Math.abs(a.length - b.length) > 2) return Infinity
  let before: number[] = []
  let previous = Array.from({ length: b.length + 1 }, (_, j) => j)
  for (let i = 1; i <= a.length; i++) {
    const row = [i]
    for (let j = 1; j <= b.length; j++) {
      const replaced = previous[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)
      let best = Math.min(replaced, previous[j]! + 1, row[j - 1]! + 1)
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) best = Math.min(best, before[j - 2]! + 1)
      row.push(best)
    }
    before = previous
    previous = row
  }
  return previous[b.length]!
}
