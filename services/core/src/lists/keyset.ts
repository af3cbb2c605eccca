import { problems } from '@haven/errors'
import type { Answer } from '../http/answer.ts'
import type { Query } from '../http/request.ts'
import { safePath } from './page.ts'

/** Where a page begins: behind a row, or (`backwards`) before one; without a row at the end of the list that it comes from. */
export type Cursor = { backwards: boolean; row: readonly (string | number)[] | null }

/**
 * What a link carried.
 * @param sort the order of the list: in another one, a place means nothing.
 * @throws badRequest for what no link of ours carries.
 */
export function parseCursor(text: string | undefined, sort: string, width: number): Cursor | null {
  if (text === undefined) return null
  const [of, backwards, row] = read(text)
  const isRow = Array.isArray(row) && row.length === width && row.every((value) => isKey(value))
  if (of !== sort || typeof backwards !== 'boolean' || !(isRow || row === null)) {
    throw problems.badRequest({ message: 'cursor: begin at the first page, this is no link of this list' })
  }
  return { backwards, row: isRow ? (row as (string | number)[]) : null }
}

export const formatCursor = (sort: string, { backwards, row }: Cursor): string =>
  Buffer.from(JSON.stringify([sort, backwards, row])).toString('base64url')

// Postgres has no text with U+0000, nor half of a surrogate pair.
const isKey = (value: unknown) =>
  typeof value === 'string' ? value.isWellFormed() && !value.includes('\0') : Number.isSafeInteger(value)

function read(text: string): unknown[] {
  try {
    const found: unknown = JSON.parse(Buffer.from(text, 'base64url').toString('utf8'))
    return Array.isArray(found) ? found : []
  } catch {
    return []
  }
}

/** A page with links to where the list goes on. */
export function keysetAnswer(
  { path, query }: { path: string; query: Query },
  cursors: Readonly<Record<string, string | null>>,
  items: readonly unknown[],
  headers: Record<string, string> = {},
): Answer {
  const links = Object.entries(cursors).flatMap(([rel, cursor]) => {
    if (cursor === null) return []
    const asked = new URLSearchParams()
    for (const [name, values] of Object.entries({ ...query, page: [], cursor })) {
      for (const value of [values].flat()) asked.append(name, value)
    }
    return [`<${safePath(path)}?${asked.toString()}>; rel="${rel}"`]
  })
  return { status: 200, headers: { ...headers, ...(links.length > 0 && { Link: links.join(' , ') }) }, body: items }
}
