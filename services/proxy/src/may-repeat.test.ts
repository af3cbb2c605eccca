import { describe, expect, it } from '@jest/globals'
import { mayRepeat } from './may-repeat.ts'

const requests = {
  GET: { method: 'GET', headers: {} },
  HEAD: { method: 'HEAD', headers: {} },
  'POST without a body': { method: 'POST', headers: { 'content-length': '0' } },
  DELETE: { method: 'DELETE', headers: {} },
  'PATCH with a body': { method: 'PATCH', headers: { 'content-length': '9' } },
  'PUT in chunks': { method: 'PUT', headers: { 'transfer-encoding': 'chunked' } },
  'GET with a body': { method: 'GET', headers: { 'content-length': '9' } },
}
const namesOf = (code: string, complete = true) =>
  Object.entries(requests)
    .filter(([, request]) => mayRepeat({ ...request, complete }, Object.assign(new Error(code), { code })))
    .map(([name]) => name)

describe('a request that was not answered may be sent again', () => {
  it('when no process was there to take it: whatever has no body', () => {
    expect(namesOf('ECONNREFUSED')).toEqual(['GET', 'HEAD', 'POST without a body', 'DELETE'])
  })

  it.each(['ECONNRESET', 'EPIPE', 'UND_ERR_SOCKET'])('when its connection broke (%s): what has no effect', (code) => {
    expect(namesOf(code)).toEqual(['GET', 'HEAD'])
  })

  it('not for another reason, and not before all of it is here', () => {
    expect(namesOf('ETIMEDOUT')).toEqual([])
    expect(namesOf('ECONNREFUSED', false)).toEqual([])
  })
})
