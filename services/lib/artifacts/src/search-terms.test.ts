import { describe, expect, it } from '@jest/globals'
import { parseSearch } from './search-terms.ts'

const now = new Date('2026-03-31T00:00:00Z')
const read = (q: string) => parseSearch(q, now)

describe('parseSearch', () => {
  it.each([
    ['cart', { field: 'word', value: 'cart' }],
    ['-cart', { negated: true, field: 'word', value: 'cart' }],
    ['tag:1.2', { field: 'tag', pattern: ['1.2'] }],
    ['tag:1.*-rc*', { field: 'tag', pattern: ['1.', '-rc', ''] }],
    ['repository:shop/*', { field: 'repository', pattern: ['shop/', ''] }],
    ['digest:ab12', { field: 'digest', prefix: 'sha256:ab12' }],
    ['digest:sha512:ab', { field: 'digest', prefix: 'sha512:ab' }],
    ['label:"needs review"', { field: 'label', value: 'needs review' }],
    [
      'annotation:org.opencontainers.image.vendor',
      { field: 'annotation', name: 'org.opencontainers.image.vendor', value: null },
    ],
    ['annotation:a=b=c', { field: 'annotation', name: 'a', value: 'b=c' }],
    ['annotation:"a b"="c: d"', { field: 'annotation', name: 'a b', value: 'c: d' }],
    ['platform:linux/arm64', { field: 'platform', os: 'linux', architecture: 'arm64' }],
    ['platform:windows', { field: 'platform', os: 'windows', architecture: null }],
    ['type:chart', { field: 'type', value: 'CHART' }],
    ['pushed:>2026-03-04', { field: 'pushed', after: true, time: new Date('2026-03-04T00:00:00Z') }],
    ['pushed:<2026-03-04T05:06', { field: 'pushed', after: false, time: new Date('2026-03-04T05:06:00Z') }],
    ['pulled:<2026-03-04T05:06:07+01:00', { field: 'pulled', after: false, time: new Date('2026-03-04T04:06:07Z') }],
    ['pulled:<-30d', { field: 'pulled', after: false, time: new Date('2026-03-01T00:00:00Z') }],
    ['pulled:never', { field: 'never pulled' }],
    ['is:untagged', { field: 'untagged' }],
    ['is:tagged', { negated: true, field: 'untagged' }],
    ['-is:tagged', { field: 'untagged' }],
    [String.raw`label:"a \"b\" c"`, { field: 'label', value: 'a "b" c' }],
    [String.raw`annotation:a="\\d \w"`, { field: 'annotation', name: 'a', value: String.raw`\d \w` }],
    [String.raw`annotation:a=\w`, { field: 'annotation', name: 'a', value: String.raw`\w` }],
    ['"tag:1"', { field: 'word', value: 'tag:1' }],
  ])('reads %s', (q, term) => {
    expect(read(q)).toEqual([{ negated: false, ...term }])
  })

  it('reads several terms, all of which must hold', () => {
    expect(read('  cart  tag:1.*   -label:old ')).toHaveLength(3)
    expect(parseSearch(undefined, now)).toEqual([])
  })

  it.each([
    ['cart colour:red', 'there is no field "colour", at character 6'],
    ['tag:', 'a value of tag is missing, at character 5'],
    ['cart -', 'a term is missing, at character 7'],
    ['cart "shop', 'this quote does not end, at character 6'],
    ['digest:xyz', 'this is no beginning of a digest, at character 8'],
    ['annotation:=x', 'the name of the annotation is missing, at character 12'],
    ['platform:linux/', 'a platform is os or os/architecture, at character 10'],
    ['pushed:2026-03-04', 'a time begins with > or <, at character 8'],
    ['pushed:>yesterday', 'a time is a date such as 2026-03-04, or -30d, at character 9'],
    ['pushed:>2026-13-44', 'a time is a date such as 2026-03-04, or -30d, at character 9'],
    ['pushed:>2026-02-30', 'a time is a date such as 2026-03-04, or -30d, at character 9'],
    ['pushed:>2026-03-04T25:00', 'a time is a date such as 2026-03-04, or -30d, at character 9'],
    ['pulled:<0000-01-01', 'a time is a date such as 2026-03-04, or -30d, at character 9'],
    ['-pulled:>-9999y', 'a time is a date such as 2026-03-04, or -30d, at character 10'],
    [String.raw`label:"a\"`, 'this quote does not end, at character 7'],
    ['is:signed', 'is takes tagged or untagged, at character 4'],
    ['a '.repeat(21), 'there are more than 20 terms, at character 41'],
    ['x'.repeat(1025), 'q is longer than 1024 bytes'],
  ])('refuses %.30s and says where', (q, message) => {
    expect(() => read(q)).toThrow(message)
  })
})
