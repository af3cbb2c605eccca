import type { ObjectKey } from './object-key.ts'

/** The store has no such object, although the database says so: an integrity fault, or a reader that came after the eraser. */
export class ObjectMissing extends Error {
  readonly key: ObjectKey
  constructor(key: ObjectKey, options?: ErrorOptions) {
    super(`the store has no object ${key}`, options)
    this.name = 'ObjectMissing'
    this.key = key
  }
}

/** The store gave fewer bytes than asked for. */
export class ObjectTruncated extends Error {
  readonly key: ObjectKey
  constructor(key: ObjectKey, missingBytes: number, options?: ErrorOptions) {
    super(`object ${key} ended ${missingBytes} bytes early`, options)
    this.name = 'ObjectTruncated'
    this.key = key
  }
}

/** The bytes of an object are not those of its digest. */
export class ObjectCorrupt extends Error {
  readonly key: ObjectKey
  constructor(key: ObjectKey) {
    super(`object ${key} has other bytes than its digest says`)
    this.name = 'ObjectCorrupt'
    this.key = key
  }
}

/** The store no longer has the bytes of an unfinished upload (swept, lost in a power cut, refused by a sync): it starts again. */
export class UploadLost extends Error {
  readonly key: ObjectKey
  constructor(key: ObjectKey, why: string, options?: ErrorOptions) {
    super(`the upload to ${key} cannot go on: ${why}`, options)
    this.name = 'UploadLost'
    this.key = key
  }
}

/** The bytes of an upload are not as many as the caller says. */
export class SizeMismatch extends Error {
  constructor(key: ObjectKey, expectedBytes: number, actualBytes: number) {
    super(`the upload to ${key} has ${actualBytes} bytes, not ${expectedBytes}`)
    this.name = 'SizeMismatch'
  }
}
