import { problems } from '@haven/errors'
import type { ExporterConfig } from './config.ts'
import { splitUrls } from './components.ts'

const SCRAPE_MS = 10_000

/** What can be asked for on the one port of all metrics, and where its figures are. */
export class Scrape {
  readonly #addresses: Readonly<Record<string, readonly string[]>>

  constructor(config: ExporterConfig) {
    const fronts = splitUrls(config.frontUrls)
    const front = (url: string | undefined) => (fronts.length > 0 ? fronts : url === undefined ? [] : [url])
    this.#addresses = {
      core: front(config.coreUrl),
      registry: front(config.registryUrl),
      token: front(config.tokenUrl),
      proxy: front(config.portalUrl),
      jobservice: [config.jobserviceUrl],
      registryctl: [config.registryctlUrl],
    }
  }

  /**
   * The metrics of a component; of several processes each series has their number as `process`.
   * @throws notFound for a component that nobody knows; serviceUnavailable for one that does not answer
   */
  async of(component: string): Promise<string> {
    const addresses = Object.hasOwn(this.#addresses, component) ? this.#addresses[component]! : []
    if (addresses.length === 0) throw problems.notFound({ resource: 'component', id: component })
    const texts = await Promise.all(addresses.map((url) => scraped(component, url)))
    return texts.length === 1 ? texts[0]! : merged(texts)
  }
}

async function scraped(component: string, url: string): Promise<string> {
  const unavailable = (cause: unknown) =>
    problems.serviceUnavailable({ message: `the metrics of ${component} cannot be had` }, { cause })
  const answer = await fetch(new URL('/metrics', url), { signal: AbortSignal.timeout(SCRAPE_MS) }).catch(
    (cause: unknown) => {
      throw unavailable(cause)
    },
  )
  if (!answer.ok) throw unavailable(new Error(`answered ${answer.status}`))
  return answer.text()
}

/** One text of several: each family once, each series told apart by `process`. */
export function merged(texts: readonly string[]): string {
  const families = new Map<string, { head: string[]; lines: string[] }>()
  for (const [i, text] of texts.entries()) {
    let family = { head: [] as string[], lines: [] as string[] }
    for (const line of text.split('\n')) {
      const [, name] = /^# (?:HELP|TYPE) (\S+)/.exec(line) ?? []
      if (name !== undefined) {
        const known = families.get(name)
        if (!known) families.set(name, (family = { head: [], lines: [] }))
        else family = known
        if (!family.head.some((other) => other.slice(0, 7) === line.slice(0, 7))) family.head.push(line)
      } else if (line !== '' && !line.startsWith('#')) family.lines.push(labelled(line, i))
    }
  }
  return [...families.values()].flatMap(({ head, lines }) => [...head, ...lines, '']).join('\n')
}

function labelled(line: string, process: number): string {
  const [, name, labels = '', rest] = /^([^\s{]+)(?:\{(.*)\})?( [^}]*)$/.exec(line) ?? []
  if (name === undefined) return line
  return `${name}{${labels === '' ? '' : `${labels},`}process="${process}"}${rest}`
}
