import { Transform } from 'node:stream'

/** Passes bytes through and fails on the first one past `maxBytes` (threats.md R13). */
export function countBytes(maxBytes: number, tooMany: () => Error): Transform {
  let seen = 0
  return new Transform({
    transform(chunk: Uint8Array, _encoding, done) {
      seen += chunk.byteLength
      if (seen > maxBytes) done(tooMany())
      else done(null, chunk)
    },
  })
}
