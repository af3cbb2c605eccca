/**
 * A client that was told of a blob or a manifest is promised that it stays for a while. A promise with less than a quarter of it used up is left
 * alone: whoever only reads costs no write, and a collection that runs at the same moment is more than an hour away from touching the row.
 */
export const FRESH_SHARE = 0.75

/** SQL: the end of a promise of so many seconds that is made now. */
export const until = (seconds: string) => `now() + ${seconds} * interval '1 second'`

/** SQL: what such a promise must reach to be left alone. */
export const fresh = (seconds: string) => `now() + ${seconds} * interval '${FRESH_SHARE} second'`
