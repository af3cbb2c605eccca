import { expect, it } from '@jest/globals'
import { isOlder, oldest } from './oldest.ts'

it.each([
  ['14.19', oldest.postgres, true],
  ['15.0', oldest.postgres, false],
  ['15.4 (Debian 15.4-1)', oldest.postgres, false],
  ['18beta1', oldest.postgres, false],
  ['6.0.16', oldest.redis, true],
  ['6.2.0', oldest.redis, false],
  ['7.0.15', oldest.redis, false],
  ['22.20.0', oldest.node, true],
  ['24.9.0', oldest.node, true],
  ['24.15.0', oldest.node, false],
  ['unknown', oldest.redis, false],
])('%s is older than %s: %s', (version, than, expected) => {
  expect(isOlder(version, than)).toBe(expected)
})
