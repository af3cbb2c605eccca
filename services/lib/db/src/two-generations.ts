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

  /** @param maxWeight of one generation, as `weigh` counts it: unless it is given, the characters of the keys. */
  constructor(limit: number, maxWeight = Infinity, weigh: (key: string, value: Value) => number = (key) => key.length) {
    this.#limit = limit
    this.#maxWeight = maxWeight
    this.#weigh = weigh
  }

  get(key: string): Value | undefined {
    const young = this.#young.get(key)
    if (young !== undefined) return young
    const old = this.#old.get(key)
    if (old !== undefined) this.set(key, old)
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
