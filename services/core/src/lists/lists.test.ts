import { describe, expect, it } from '@jest/globals'
import { listAnswer, pageOf } from './page.ts'
import { parseQ, parseSort } from './query.ts'

describe('parseQ', () => {
  it.each([
    ['name=library', { field: 'name', match: 'exact', value: 'library' }],
    ['name=~lib', { field: 'name', match: 'contains', value: 'lib' }],
    [String.raw`name=\~lib`, { field: 'name', match: 'exact', value: '~lib' }],
    ['a=b=c', { field: 'a', match: 'exact', value: 'b=c' }],
    ['id=[1~5]', { field: 'id', match: 'range', min: 1, max: 5 }],
    ['id=[~5]', { field: 'id', match: 'range', max: 5 }],
    ['t=[2024-01-02T03:04:05~]', { field: 't', match: 'range', min: new Date('2024-01-02T03:04:05Z') }],
    ['t=[2024-01-02 03:04:05~]', { field: 't', match: 'range', min: new Date('2024-01-02T03:04:05Z') }],
    ['name={library "5" 7}', { field: 'name', match: 'in', values: ['library', '5', 7] }],
    ['labels=(1 2)', { field: 'labels', match: 'all', values: [1, 2] }],
    ['name__icontains=LIB', { field: 'name', match: 'contains', value: 'LIB' }],
    ['id__gte=5', { field: 'id', match: 'range', min: 5 }],
    ['id__lt=5', { field: 'id', match: 'range', max: 5, exclusive: true }],
    ['name=a%2Bb', { field: 'name', match: 'exact', value: 'a+b' }],
    ['name=a+b', { field: 'name', match: 'exact', value: 'a b' }],
  ])('reads %s', (q, condition) => {
    expect(parseQ(q)).toEqual([condition])
  })

  it('reads several terms, and nothing from nothing', () => {
    expect(parseQ('a=1,b=2')).toHaveLength(2)
    expect(parseQ('')).toEqual([])
    expect(parseQ(undefined)).toEqual([])
  })

  it.each(['a__b__c=1', 'a__sounds=1'])('skips the operator that it does not know in %s', (q) => {
    expect(parseQ(q)).toEqual([])
  })

  it.each([
    ['abc', 'the query string must contain "=" and the key/value cannot be empty'],
    ['name=', 'the query string must contain "="'],
    ['=x', 'the query string must contain "="'],
    ['a=1,', 'the query string must contain "="'],
    ['a=~', 'the query string must contain "="'],
    ['t=[abc', 'invalid query string value: [abc'],
    ['t=[1]', 'invalid query string value: [1]'],
    ['t={1', 'invalid query string value: {1'],
    ['t=(1', 'invalid query string value: (1'],
    ['t=[2024-13-99T99:99:99~]', 'invalid query string value'],
    ['a=%zz', 'invalid URL escape "%zz"'],
    [`a=${'x'.repeat(1024)}`, 'longer than 1024 bytes'],
    [Array.from({ length: 21 }, () => 'a=1').join(','), 'more than 20 terms'],
    [`a={${'1 '.repeat(101)}}`, 'more than 100 members'],
  ])('refuses %.40s', (q, message) => {
    expect(() => parseQ(q)).toThrow(message)
  })

  it('never decodes twice what it has decoded once more', () => {
    expect(parseQ('name=%252C')).toEqual([{ field: 'name', match: 'exact', value: '%2C' }])
  })
})

describe('parseSort', () => {
  it('reads fields and their directions', () => {
    expect(parseSort('name,-creation_time,,-')).toEqual([
      { field: 'name', descending: false },
      { field: 'creation_time', descending: true },
    ])
    expect(parseSort(undefined)).toEqual([])
  })
})

describe('pages', () => {
  const at = { path: '/api/v2.0/projects', query: { sort: 'name', page: '7' } }
  const headers = (
    asked: { page?: number; page_size?: number },
    total: number,
    query: Record<string, string> = at.query,
  ) => listAnswer({ ...at, query }, asked, total, []).headers

  it('counts from one, ten at a time, at most a hundred', () => {
    expect(pageOf({})).toEqual({ number: 1, size: 10 })
    expect(pageOf({ page: 0, page_size: 0 })).toEqual({ number: 1, size: 100 })
    expect(pageOf({ page: -3, page_size: -1 })).toEqual({ number: 1, size: 100 })
    expect(pageOf({ page: Number.MAX_SAFE_INTEGER }).number).toBeLessThan(Number.MAX_SAFE_INTEGER)
  })

  it('links to the pages before and after, in the order of the names', () => {
    expect(headers({ page: 2, page_size: 2 }, 6)).toEqual({
      'X-Total-Count': '6',
      Link:
        '</api/v2.0/projects?page=1&page_size=2&sort=name>; rel="prev" , ' +
        '</api/v2.0/projects?page=3&page_size=2&sort=name>; rel="next"',
    })
    expect(headers({ page: 99 }, 4)).toEqual({ 'X-Total-Count': '4' })
    expect(headers({}, 0)).toEqual({ 'X-Total-Count': '0' })
  })

  it('shows a query as it is meant, but lets nothing end the header', () => {
    expect(headers({}, 11, { q: 'name=~orc' })?.Link).toBe(
      '</api/v2.0/projects?page=2&page_size=10&q=name=~orc>; rel="next"',
    )
    const link = headers({}, 11, { q: 'a\r\nSet-Cookie: x>; rel="x"\ud800' })?.Link ?? ''
    expect(link).not.toMatch(/[\r\n]|>;.*>;/)
    expect(link).toContain('%0D%0ASet-Cookie:%20x%3E;%20rel=%22x%22')
  })
})
