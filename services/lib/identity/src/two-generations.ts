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

  /** @param maxWeight of the keys of one generation together, in characters. */
  constructor(limit: number, maxWeight = Infinity) {
    this.#limit = limit
    this.#maxWeight = maxWeight
  }

  get(key: string): Value | undefined {
    const young = this.#young.get(key)
    if (young !== undefined) return young
    const old = this.#old.get(key)
    if (old !== undefined) this.set(key, old)
    return old
  }

  set(key: string, value: Value): void {
    if (this.#young.size >= this.#limit || this.#youngWeight + key.length > this.#maxWeight) {
      this.#old = this.#young
      this.#young = new Map()
      this.#youngWeight = 0
    }
    if (!this.#young.has(key)) this.#youngWeight += key.length
    this.#young.set(key, value)
  }

  delete(key: string): void {
    if (this.#young.delete(key)) this.#youngWeight -= key.length
    this.#old.delete(key)
  }

  clear(): void {
    this.#young = new Map()
    this.#old = new Map()
    this.#youngWeight = 0
  }
}
