import type { Page } from '@haven/db'
import type { Answer } from '../http/answer.ts'
import type { Query } from '../http/request.ts'

export const MAX_PAGE_SIZE = 100
/** Past this, no offset is computed: the page is empty anyway. */
const MAX_PAGE = 1_000_000_000

/**
 * Which rows a list shows. Harbor takes sizes below 1 for "everything" and pages below 1 for the first; here such a size is the
 * largest that may be asked for, with a link to go on (threats.md §5).
 */
export function pageOf({ page = 1, page_size = 10 }: { page?: number; page_size?: number }): Page {
  return {
    number: Math.min(Math.max(page, 1), MAX_PAGE),
    size: page_size < 1 ? MAX_PAGE_SIZE : page_size,
  }
}

/** A page with its headers. The links carry the request's own query, with what could end the header or the link encoded. */
export function listAnswer(
  at: { path: string; query: Query },
  asked: { page?: number; page_size?: number },
  total: number,
  items: readonly unknown[],
): Answer {
  const number = asked.page ?? 1
  const { size } = pageOf(asked)
  // As Harbor counts: a page that is not there is followed by the next number all the same.
  const links = [
    ...(number > 1 && (number - 1) * size < total ? [linkTo(at, number - 1, size, 'prev')] : []),
    ...(number * size < total ? [linkTo(at, number + 1, size, 'next')] : []),
  ]
  return {
    status: 200,
    headers: { 'X-Total-Count': String(total), ...(links.length === 0 ? {} : { Link: links.join(' , ') }) },
    body: items,
  }
}

function linkTo({ path, query }: { path: string; query: Query }, page: number, size: number, rel: string): string {
  const asked: Query = { ...query, page: String(page), page_size: String(size) }
  const text = Object.keys(asked)
    .sort()
    .flatMap((name) => [asked[name] ?? ''].flat().map((value) => `${name}=${value}`))
    .join('&')
  return `<${safePath(path)}?${safe(text)}>; rel="${rel}"`
}

/** A path as a request has it, from one that was decoded: the name of a repository comes encoded twice. */
export const safePath = (path: string) => safe(path.replaceAll(/[%?#]/g, (char) => encodeURIComponent(char)))

const safe = (text: string) => text.replaceAll(/[^\x21-\x7e]|[<>"]/g, (char) => encodeURIComponent(char.toWellFormed()))
