/** Whether a number may be the id of a row: Postgres refuses one that the column cannot hold. */
export const isId = (id: number): boolean => Number.isSafeInteger(id) && id > 0 && id < 2 ** 31
