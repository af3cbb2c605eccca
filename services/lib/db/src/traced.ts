import { inSpan, tracing } from '@haven/telemetry'
import type { Run, Sql } from './sql.ts'
import type { Statement } from './statement.ts'
import { Prisma, type PrismaClient } from './gen/prisma/client.ts'

// Without values: they are what a trace must not tell.
const options = (name: string) =>
  ({
    name: `postgres ${name}`,
    kind: 'client',
    attributes: { 'db.system.name': 'postgresql', 'db.query.summary': name },
  }) as const

/** The same reads, each in a span of who asked; as they are when no traces are sent. */
export function tracedReads(sql: Sql): Sql {
  if (tracing() === null) return sql
  const traced = <T>({ name }: { name: string }, ask: () => Promise<T>) => inSpan(options(name), ask)
  return {
    rows: <Row extends object>(statement: Statement<Row>, values: readonly unknown[]) =>
      traced(statement, () => sql.rows(statement, values)),
    one: <Row extends object>(statement: Statement<Row>, values: readonly unknown[]) =>
      traced(statement, () => sql.one(statement, values)),
  }
}

/** The same statements, each in a span; as they are when no traces are sent. */
export function tracedRun(run: Run): Run {
  return tracing() === null ? run : (query) => inSpan(options(query.name ?? query.text ?? ''), () => run(query))
}

export function tracedPrisma(client: PrismaClient): PrismaClient {
  if (tracing() === null) return client
  const traced = Prisma.defineExtension({
    query: {
      $allOperations: ({ model, operation, args, query }) =>
        inSpan(options(model === undefined ? operation : `${model}.${operation}`), () => query(args)),
    },
  })
  return client.$extends(traced) as unknown as PrismaClient
}
