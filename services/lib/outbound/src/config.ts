import { BlockList } from 'node:net'
import { defineConfig, list, type Setting } from '@haven/config'
import { problems } from '@haven/errors'
import { addNetwork } from './addresses.ts'

/** What every service that calls other servers lets its operator set. */
export const outboundConfig = defineConfig('OUTBOUND', {
  allow: networks(
    'Private or local networks that may be called all the same: where your own registries, scanners and webhook receivers are.',
  ),
})

/** A list whose entries are checked at the start instead of at the first call. */
function networks(doc: string): Setting<readonly string[]> {
  const texts = list({ doc, default: [] })
  return {
    ...texts,
    kind: 'networks',
    expected: 'IP addresses and networks such as 10.1.0.0/16, separated by commas',
    parse(given) {
      const parsed = texts.parse(given)
      if ('wrong' in parsed) return parsed
      const wrong = parsed.value.find((entry) => !isNetwork(entry))
      return wrong === undefined ? parsed : { wrong: `${JSON.stringify(wrong)} is neither` }
    },
  }
}

function isNetwork(entry: string): boolean {
  try {
    addNetwork(new BlockList(), entry)
    return true
  } catch (error) {
    if (problems.settingsInvalid.is(error)) return false
    throw error
  }
}
