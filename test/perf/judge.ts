import { TOO_MUCH_FOREIGN_CORES, type Sample, type Samples } from './measure.ts'
import type { SubjectKey } from './subjects.ts'
import { GATE_SHARE, type Target } from './targets.ts'

/** What a row showed: of subjects that were measured beside each other, and figures by their name in the row's targets. */
export type Shown = { samples?: Samples; mixed?: boolean; values?: Readonly<Record<string, number>> }

export type Verdict = {
  claim: string
  value: number
  lowerQuartile: number | null
  /** Null where the figure is only told; then so is `met`. */
  target: number | null
  met: boolean | null
  /** What the gate asks; null where the target is not the gate's. */
  gate: number | null
  because: string | null
  passed: boolean
}

export const sorted = (values: readonly number[]) => values.toSorted((a, b) => a - b)

/** Between two values in the middle of an even number, their mean. */
export function median(values: readonly number[]): number {
  const all = sorted(values)
  const middle = all.length / 2
  return Number.isInteger(middle) ? (all[middle - 1]! + all[middle]!) / 2 : all[Math.floor(middle)]!
}
export const quartile = (values: readonly number[], share: 0.25 | 0.75) =>
  sorted(values)[Math.min(values.length - 1, Math.floor(values.length * share))]!
export const leastCpu = (samples: readonly Sample[]) => Math.min(...samples.map(({ cpu }) => cpu))

/** A ratio holds when its median meets the target and its lower quartile nine tenths of it. */
const QUARTILE_SHARE = 0.9

/** Null when the row showed nothing of what the target speaks of. */
export function judge(target: Target, shown: Shown, ours: SubjectKey): Verdict | null {
  if (target.measure === 'told') return tell(target, shown)
  if (target.measure === 'value') return judgeValue(target, shown)
  const [mine, peer] = [shown.samples?.get(ours), shown.samples?.get(target.of)]
  if (!mine?.length || !peer?.length) return null
  if (target.measure === 'rate') {
    // Round by round, since a round's noise meets both.
    const ratios = mine.map(({ rate }, round) => rate / peer[round]!.rate)
    const [value, lowerQuartile] = [median(ratios), quartile(ratios, 0.25)]
    const gate = target.gate?.at ?? target.atLeast * GATE_SHARE
    // When others took the cores, what an operation costs says more than how many there were.
    const foreign = median([...mine, ...peer].map(({ foreignCores }) => foreignCores))
    const byCpu = !shown.mixed && foreign > TOO_MUCH_FOREIGN_CORES && leastCpu(peer) / leastCpu(mine) >= gate
    return {
      claim: `rate ≥ ${figure(target.atLeast)} × ${target.of}`,
      value,
      lowerQuartile,
      target: target.atLeast,
      met: value >= target.atLeast && lowerQuartile >= target.atLeast * QUARTILE_SHARE,
      gate,
      because: target.gate?.because ?? null,
      passed: value >= gate || byCpu,
    }
  }
  const value =
    target.measure === 'cpu'
      ? leastCpu(mine) / leastCpu(peer)
      : median(mine.map(({ p99Ms }, round) => p99Ms / peer[round]!.p99Ms))
  return {
    claim: `${target.measure === 'cpu' ? 'CPU' : 'p99'} ≤ ${figure(target.atMost)} × ${target.of}`,
    value,
    lowerQuartile: null,
    target: target.atMost,
    met: value <= target.atMost,
    gate: null,
    because: null,
    passed: true,
  }
}

function tell({ what, unit }: Target & { measure: 'told' }, { values }: Shown): Verdict | null {
  const value = values?.[what]
  if (value === undefined) return null
  const none = { lowerQuartile: null, target: null, met: null, gate: null, because: null }
  return { claim: unit === '' ? what : `${what} (${unit})`, value, ...none, passed: true }
}

function judgeValue(target: Target & { measure: 'value' }, { values }: Shown): Verdict | null {
  const value = values?.[target.what]
  if (value === undefined) return null
  const unit = target.unit === '' ? '' : ` ${target.unit}`
  const [word, bound, met] =
    'atMost' in target
      ? (['≤', target.atMost, value <= target.atMost] as const)
      : (['≥', target.atLeast, value >= target.atLeast] as const)
  const gate = target.gate?.at ?? ('atMost' in target ? bound / GATE_SHARE : bound * GATE_SHARE)
  return {
    claim: `${target.what} ${word} ${figure(bound)}${unit}`,
    value,
    lowerQuartile: null,
    target: bound,
    met,
    gate,
    because: target.gate?.because ?? null,
    passed: 'atMost' in target ? value <= gate : value >= gate,
  }
}

export const figure = (value: number) =>
  value >= 1000
    ? Math.round(value).toLocaleString('en')
    : value >= 100 || Number.isInteger(value)
      ? String(Math.round(value))
      : value.toPrecision(value < 1 ? 2 : 3)
