/** What Harbor shows for a time that is not known. */
export const NO_TIME = '0001-01-01T00:00:00.000Z'

/** RFC 3339 in UTC with milliseconds. */
export const time = (date: Date | null | undefined): string => date?.toISOString() ?? NO_TIME
