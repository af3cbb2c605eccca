/** With so many keys, evenly spread, a place among all others is looked for: each round leaves a hundredth. */
const MARKS = 100

/** Before which of the keys each that enters belongs. Null when a key is gone that nothing told of. */
export async function placesOf(
  keys: Int32Array,
  gone: ReadonlySet<number>,
  entering: readonly number[],
  inOrder: (among: readonly number[]) => Promise<readonly number[]>,
): Promise<number[] | null> {
  const places = entering.map(() => ({ from: 0, to: keys.length }))
  for (;;) {
    const marks = new Map<number, number>()
    for (const { from, to } of places) {
      const step = Math.max(1, Math.floor((to - from) / MARKS))
      for (let at = from; at < to; at += step) {
        // What was touched is in another place by now: the next that stayed stands for it.
        let mark = at
        while (mark < to && gone.has(keys[mark]!)) mark++
        if (mark < to) marks.set(keys[mark]!, mark)
      }
    }
    if (marks.size === 0) return places.map(({ from }) => from)
    const ranked = await inOrder([...marks.keys(), ...entering])
    if (ranked.length !== marks.size + entering.length) return null
    let n = 0
    let before = -1
    const waiting: number[] = []
    for (const key of ranked) {
      const mark = marks.get(key)
      if (mark === undefined) {
        places[n]!.from = Math.max(places[n]!.from, before + 1)
        waiting.push(n++)
      } else {
        for (const each of waiting.splice(0)) places[each]!.to = Math.min(places[each]!.to, mark)
        before = mark
      }
    }
  }
}

/** The keys without those that are gone, and with each that enters in its place. Both are in the order of the list. */
export function insert(
  keys: Int32Array,
  gone: ReadonlySet<number>,
  entering: readonly number[],
  places: readonly number[],
): Int32Array {
  const left = indexesOf(keys, gone)
  const all = new Int32Array(keys.length - left.length + entering.length)
  let [length, from, next] = [0, 0, 0]
  const copy = (to: number) => {
    all.set(keys.subarray(from, to), length)
    length += to - from
    from = to
  }
  for (const [n, key] of entering.entries()) {
    for (; next < left.length && left[next]! < places[n]!; from = left[next++]! + 1) copy(left[next]!)
    copy(places[n]!)
    all[length++] = key
  }
  for (; next < left.length; from = left[next++]! + 1) copy(left[next]!)
  copy(keys.length)
  return all
}

/** Ascending. Few are looked for one by one, which takes less than asking of each key of a million whether it is one of them. */
function indexesOf(keys: Int32Array, some: ReadonlySet<number>): number[] {
  const found: number[] = []
  if (some.size > 8) keys.forEach((key, at) => some.has(key) && found.push(at))
  else for (const key of some) found.push(keys.indexOf(key))
  return found.filter((at) => at >= 0).sort((a, b) => a - b)
}
