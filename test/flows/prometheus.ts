/** Names of series in Prometheus' text, each with the labels that it was seen with and their values. */
export type Served = Map<string, Map<string, Set<string>>>

export function readMetrics(text: string, into: Served = new Map()): Served {
  for (const line of text.split('\n')) {
    if (line === '' || line.startsWith('#')) continue
    const [, name, labels = ''] = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? \S+$/.exec(line) ?? []
    if (name === undefined) throw new Error(`no line of Prometheus' text: ${line}`)
    let known = into.get(name)
    if (!known) into.set(name, (known = new Map()))
    for (const [, label, value] of labels.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)) {
      let values = known.get(label!)
      if (!values) known.set(label!, (values = new Set()))
      values.add(value!)
    }
  }
  return into
}

/** Prometheus adds these itself. */
const added = new Set(['instance', 'job'])
const keywords = new Set([
  'by',
  'without',
  'on',
  'ignoring',
  'group_left',
  'group_right',
  'and',
  'or',
  'unless',
  'bool',
])
const grouping = /\b(?:by|on|without|ignoring|group_left|group_right)\s*\(([^)]*)\)/g

/** What an expression of PromQL asks for and nobody serves: names of series, and labels that none of its series has. */
export function missingIn(expression: string, served: Served, legend = ''): string[] {
  const plain = expression.replaceAll(/"(?:[^"\\]|\\.)*"/g, (text) => text.replaceAll(/[{}(),[\]]/g, ' '))
  const labels = new Set<string>()
  for (const [, list] of plain.matchAll(grouping)) for (const label of list!.split(',')) labels.add(label.trim())
  for (const [, label] of legend.matchAll(/\{\{\s*(?:\$labels\.)?(\w+)\s*\}\}/g)) labels.add(label!)
  const missing: string[] = []
  const names = new Set<string>()
  const bare = plain.replaceAll(grouping, ' ').replaceAll(/\[[^\]]*\]/g, ' ')
  for (const [, name, selector = ''] of bare.matchAll(
    /(?<![\w$"])([a-zA-Z_:][\w:]*)(?!\s*\(|\w)\s*(?:\{([^}]*)\})?/g,
  )) {
    if (keywords.has(name!)) continue
    const known = served.get(name!)
    if (!known) missing.push(name!)
    else {
      names.add(name!)
      for (const [, label] of selector.matchAll(/(\w+)\s*(?:=~|!~|!=|=)/g)) {
        if (!known.has(label!) && !added.has(label!)) missing.push(`${name}{${label}}`)
      }
    }
  }
  for (const label of labels) {
    if (added.has(label) || label === '') continue
    if (![...names].some((name) => served.get(name)!.has(label))) missing.push(`{${label}} of ${[...names].join(', ')}`)
  }
  return missing
}
