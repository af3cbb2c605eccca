import { randomUUID } from 'node:crypto'

/** Where an object lies in its store. Random and known only to the database; nothing is ever derived from it. */
export type ObjectKey = string

const ownKey = /^o\/([0-9a-f]{2})\/(\1[0-9a-f]{6}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})$/
const readableKey =
  /^(?!.*(?:^|\/)\.{1,2}(?:\/|$))[A-Za-z0-9_.][A-Za-z0-9_.=+@:-]*(?:\/[A-Za-z0-9_.][A-Za-z0-9_.=+@:-]*)*$/

/** A key that nothing was ever stored under: `o/`, two hex digits that spread objects over folders, `/`, a UUID. */
export function newObjectKey(uuid: string = randomUUID()): ObjectKey {
  return `o/${uuid.slice(0, 2)}/${uuid}`
}

/** The UUID of a key that `newObjectKey` made. Only such keys are ever written. */
export function uuidOf(key: ObjectKey): string {
  const uuid = ownKey.exec(key)?.[2]
  if (uuid === undefined) throw new TypeError(`not a key of this platform's making: ${JSON.stringify(key)}`)
  return uuid
}

/** Whether `newObjectKey` could have made it. */
export function isObjectKey(key: string): boolean {
  return ownKey.test(key)
}

/**
 * Lets any relative key without dot segments pass, since objects of an adopted store keep their place.
 * Keys come from the database, but also from an internal header, so each driver asks.
 */
export function readable(key: ObjectKey): ObjectKey {
  if (key.length > 512 || !readableKey.test(key)) throw new TypeError(`not an object key: ${JSON.stringify(key)}`)
  return key
}
