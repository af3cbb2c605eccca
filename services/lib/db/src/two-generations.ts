type CacheUses = { hits: number; misses: number }

const uses = new Map<string, CacheUses>()

function usesOf(name: string): CacheUses {
  let known = uses.get(name)
  if (!known) uses.set(name, (known = { hits: 0, misses: 0 }))
  return known
}

/** How often the named caches of this process knew what was asked for, and how often not. */
export const cacheUses = (): ReadonlyMap<string, Readonly<CacheUses>> => uses

/**
 * A cache in two generations: entries go into the young one; when it is full it becomes the old one and the old one is
 * forgotten. What is used moves up. Deleting and re-inserting in one Map for each use, as an LRU does, costs several times
 * as much and lets V8 rebuild the table again and again.
 */
export class TwoGenerations<Value> {
  #young = new Map<string, Value>()
  #old = new Map<string, Value>()
  #youngWeight = 0
  readonly #limit: number
  readonly #maxWeight: number
  readonly #weigh: (key: string, value: Value) => number
  readonly #uses: CacheUses

  /**
   * @param maxWeight of one generation, as `weigh` counts it: unless it is given, the characters of the keys.
   * @param name under which its uses are counted, together with those of others of this name.
   */
  constructor(
    limit: number,
    maxWeight = Infinity,
    weigh: (key: string, value: Value) => number = (key) => key.length,
    name?: string,
  ) {
    this.#uses = name === undefined ? { hits: 0, misses: 0 } : usesOf(name)
    this.#limit = limit
    this.#maxWeight = maxWeight
    this.#weigh = weigh
  }

  get(key: string): Value | undefined {
    const young = this.#young.get(key)
    if (young !== undefined) {
      this.#uses.hits += 1
      return young
    }
    const old = this.#old.get(key)
    if (old === undefined) this.#uses.misses += 1
    else {
      this.#uses.hits += 1
      this.set(key, old)
    }
    return old
  }

  set(key: string, value: Value): void {
    this.#remove(key)
    const weight = this.#weigh(key, value)
    if (this.#young.size >= this.#limit || this.#youngWeight + weight > this.#maxWeight) {
      this.#old = this.#young
      this.#young = new Map()
      this.#youngWeight = 0
    }
    this.#youngWeight += weight
    this.#young.set(key, value)
  }

  delete(key: string): void {
    this.#remove(key)
    this.#old.delete(key)
  }

  #remove(key: string): void {
    const young = this.#young.get(key)
    if (young === undefined) return
    this.#youngWeight -= this.#weigh(key, young)
    this.#young.delete(key)
  }

  clear(): void {
    this.#young = new Map()
    this.#old = new Map()
    this.#youngWeight = 0
  }
}
