import { describe, expect, it } from '@jest/globals'
import { merged } from './scrape.ts'

describe('the metrics of several processes as one text', () => {
  it('has each family once and tells the processes apart', () => {
    const text = (n: number) =>
      [
        '# HELP a Of a.',
        '# TYPE a counter',
        `a{route="/{x}"} ${n}`,
        '',
        '# HELP b Of b.',
        '# TYPE b gauge',
        `b ${n}`,
        '',
      ].join('\n')
    expect(
      merged([text(1), text(2)])
        .split('\n')
        .filter((line) => line !== ''),
    ).toEqual([
      '# HELP a Of a.',
      '# TYPE a counter',
      'a{route="/{x}",process="0"} 1',
      'a{route="/{x}",process="1"} 2',
      '# HELP b Of b.',
      '# TYPE b gauge',
      'b{process="0"} 1',
      'b{process="1"} 2',
    ])
  })
})
