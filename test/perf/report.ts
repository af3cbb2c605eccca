import type { ListTimes } from './accounts.ts'
import type { Growth } from './growth.ts'
import { figure, leastCpu, median, quartile, type Verdict } from './judge.ts'
import type { Sample, Samples } from './measure.ts'
import type { StartFigures } from './start.ts'
import { subjectNames, type SubjectKey } from './subjects.ts'
import type { RowId } from './targets.ts'

export type RowResult = {
  id: RowId
  name: string
  ours: SubjectKey
  unit: 'requests' | 'MiB'
  samples: Samples | null
  verdicts: Verdict[]
}

export type Run = {
  tier: 'gate' | 'full'
  at: string
  minutes: number
  node: string
  machine: string
  versions: string
  rounds: number
  foreignCores: number | null
  rows: RowResult[]
  growth: Growth | null
  lists: ListTimes | null
  start: StartFigures | null
  /** Parts that failed: their rows are missing. */
  brokenOff: string[]
}

/** What the gate refuses, a line each. */
export const failures = ({ rows }: Run): string[] =>
  rows.flatMap(({ id, verdicts }) =>
    verdicts
      .filter(({ passed }) => !passed)
      .map(({ claim, value, gate }) => `${id}: ${claim} shows ${figure(value)}, below the gate at ${figure(gate!)}`),
  )

export function markdown(run: Run): string {
  const { foreignCores } = run
  const noise =
    foreignCores === null
      ? ''
      : `Other work on the machine while measuring: ${foreignCores.toFixed(2)} cores (median)${foreignCores > 0.5 ? ': much, trust the CPU columns and not the rates' : ''}. `
  return [
    `${run.at.slice(0, 10)}, tier ${run.tier}, ${run.minutes.toFixed(0)} min. Node ${run.node}, ${run.machine}; ${run.versions}.`,
    `${run.rounds} interleaved rounds; a figure is their median with both quartiles, CPU the least of the rounds, of all processes of the subject. ${noise}Client and server share the cores. Differences below 20 % mean nothing.`,
    'Haven: bearer token checked at each request, access log on, durable (fsync in Postgres and the blob store), warm; its CPU includes Postgres, Redis and the log collector.',
    'D2: Debian’s Distribution 2.8 behind nginx; D3: Distribution 3.1 bare; N3: D3 behind nginx with upstream keep-alive. No authentication, access logs off, descriptors cached in memory, durable (they sync their files).',
    'H: less than Harbor does: nginx as Harbor’s template sets it (no upstream keep-alive, access log on), a bare reverse proxy in core’s place, Distribution 2.8 with bcrypt at cost 5 and a Redis cache. No database, token, quota or event.',
    '',
    '| row | work | figures | CPU | p99 ms | target | shown | |',
    '|---|---|---|---|---|---|---|---|',
    ...run.rows.flatMap(linesOf),
    ...(run.brokenOff.length > 0 ? ['', `**Broken off, rows missing:** ${run.brokenOff.join(', ')}.`] : []),
    '',
    'zot cannot be installed from a package registry here; its lead over D3, measured elsewhere, is in the targets against D3.',
    ...(run.growth ? ['', ...growthLines(run.growth)] : []),
    ...(run.lists ? ['', ...listLines(run.lists)] : []),
    ...(run.start ? ['', startLine(run.start)] : []),
  ].join('\n')
}

function linesOf({ id, name, unit, samples, verdicts }: RowResult): string[] {
  const entries = [...(samples ?? [])]
  const each = (cell: (all: readonly Sample[]) => string) =>
    entries.map(([key, all]) => `${SHORT[key] ?? subjectNames[key]} ${cell(all)}`).join('; ')
  const rates = each((all) => {
    const values = all.map(({ rate }) => rate)
    return `${figure(median(values))} (${figure(quartile(values, 0.25))}–${figure(quartile(values, 0.75))})`
  })
  const [perSecond, perOperation] = unit === 'requests' ? ['/s', 'µs'] : ['MiB/s', 's/GiB']
  const first = [
    id,
    name,
    entries.length > 0 ? `${perSecond}: ${rates}` : '',
    entries.length > 0 ? `${perOperation}: ${each((all) => figure(leastCpu(all)))}` : '',
    each((all) => figure(median(all.map(({ p99Ms }) => p99Ms)))),
  ]
  if (verdicts.length === 0) return [line([...first, '', 'nothing to measure yet', ''])]
  return verdicts.map((verdict, n) => line([...(n === 0 ? first : ['', '', '', '', '']), ...verdictCells(verdict)]))
}

const SHORT: Partial<Record<SubjectKey, string>> = { D2: 'D2', D3: 'D3', N3: 'N3', H: 'H', 'N3-tls': 'N3 TLS' }

function verdictCells({ claim, value, lowerQuartile, met, gate, because }: Verdict): string[] {
  const missed = `**target missed**${because === null ? '' : ` (gate at ${figure(gate!)}: ${because})`}`
  const verdict = met === null ? 'no target' : met ? 'met' : missed
  return [claim, `${figure(value)}${lowerQuartile === null ? '' : ` (${figure(lowerQuartile)})`}`, verdict]
}

function growthLines({ sizes, probes }: Growth): string[] {
  return [
    'p50 in ms of one connection while tags, artifacts, referrers and repositories grow together in one Haven; slope of log time over log size.',
    '',
    line(['', ...sizes.map((size) => `10${SUPERSCRIPTS[Math.round(Math.log10(size))]}`), 'slope']),
    `|---|${'---|'.repeat(sizes.length + 1)}`,
    ...probes.map(({ name, p50Ms, slope }) =>
      line([name, ...p50Ms.map((value) => value.toFixed(2)), slope.toFixed(3)]),
    ),
  ]
}

const listLines = (lists: ListTimes): string[] => [
  'p50 in ms of pages of 15 by one connection, with 10³ of each; and with 10⁵ users, 10⁴ projects, 10⁶ audit lines, 10⁴ robots, groups and labels; a project of 10³ members in both.',
  '',
  line(['', 'small', 'full', '×']),
  '|---|---|---|---|',
  ...lists.map(({ name, smallMs, fullMs }) =>
    line([name, smallMs.toFixed(2), fullMs.toFixed(2), (fullMs / smallMs).toFixed(2)]),
  ),
]

const SUPERSCRIPTS = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷']
const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`

function startLine({ firstSeconds, againSeconds, coldSeconds, ours, all }: StartFigures): string {
  const cold =
    coldSeconds === null ? '' : ` Fresh clone, empty HOME, packages from the registry: ${coldSeconds.toFixed(0)} s.`
  const mib = (value: number) => `${Math.round(value)} MiB`
  return [
    `\`make up\`: ${firstSeconds.toFixed(1)} s in an empty home, ${againSeconds.toFixed(1)} s the next time, packages installed.${cold}`,
    `At rest, single: our Node processes ${mib(ours.rssMiB)} (${mib(ours.pssMiB)} when a page that several share is counted once), with Postgres and Redis ${mib(all.rssMiB)} (${mib(all.pssMiB)}).`,
  ].join('\n')
}
