#!/usr/bin/env node
import { parseArgs } from 'node:util'
import { ConfigProblem } from '@haven/config'
import { exitCodes, LaunchProblem } from './problems.ts'
import { readLauncherConfig } from './settings.ts'
import { parseServices, serviceNames } from './targets.ts'

const help = `haven: an OCI artifact platform on this machine

  haven up                      start in the background, return when healthy
  haven down                    stop what up started
  haven reset [--yes]           delete the installation (asks first)
  haven status                  what runs; exit code 0 when all is ready
  haven logs [NAME]             the end of the logs
  haven start --services A,B    run services in this process (${serviceNames.join(', ')})
  haven migrate                 bring the database to this version's schema, and stop
  haven doctor                  check settings, Postgres, Redis, store, clock, disk
  haven supervise               as up, but in the foreground

Settings come from the environment: HAVEN_PORT (8080), HAVEN_HOST (127.0.0.1), HAVEN_HOME (.haven), HAVEN_SHAPE (single, split),
HAVEN_ADMIN_PASSWORD, HAVEN_EXTERNAL_URL, DATABASE_URL, REDIS_URL, STORAGE_DRIVER and S3_* or MINIO_*.

Exit codes: 0 done, 1 no (status, doctor), ${Object.entries(exitCodes)
  .map(([name, code]) => `${code} ${name}`)
  .join(', ')}
`

const print = (line: string) => process.stdout.write(`${line}\n`)

async function command(): Promise<number> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      help: { type: 'boolean', short: 'h' },
      services: { type: 'string' },
      yes: { type: 'boolean' },
    },
  })
  const [name, argument] = positionals
  if (values.help || name === undefined || name === 'help') {
    process.stdout.write(help)
    return 0
  }
  const config = readLauncherConfig(process.env)
  // Each command loads only what it needs: the supervisor stays small.
  switch (name) {
    case 'up':
      await (await import('./commands/up.ts')).up(config, print)
      return 0
    case 'down':
      await (await import('./commands/down.ts')).down(config.home, print)
      return 0
    case 'reset':
      await (await import('./commands/down.ts')).reset(config.home, values.yes === true, print)
      return 0
    case 'status':
      return (await import('./commands/status.ts')).status(config.home, print) ? 0 : 1
    case 'logs':
      await (await import('./commands/logs.ts')).logs(config.home, argument, print)
      return 0
    case 'supervise':
      return (await import('./commands/supervise.ts')).supervise(config, process.env)
    case 'start': {
      if (values.services === undefined) throw new LaunchProblem(exitCodes.usage, 'start needs --services A,B')
      return (await import('./commands/start.ts')).start(parseServices(values.services), process.env)
    }
    case 'migrate':
      await (await import('./commands/migrate.ts')).migrateInstallation(process.env, print)
      return 0
    case 'doctor':
      return (await (await import('./commands/doctor.ts')).doctor(config, process.env, print)) ? 0 : 1
    default:
      throw new LaunchProblem(exitCodes.usage, `unknown command "${name}"; see haven --help`)
  }
}

function exitCodeOf(error: unknown): number {
  if (error instanceof LaunchProblem) return error.exitCode
  if (error instanceof ConfigProblem) return exitCodes.wrongSetting
  if (error instanceof RangeError || (error as { code?: string }).code?.startsWith('ERR_PARSE_ARGS')) return exitCodes.usage
  return exitCodes.softwareFault
}

try {
  process.exitCode = await command()
} catch (error) {
  const exitCode = exitCodeOf(error)
  const { message, stack } = error as Error
  process.stderr.write(`haven: ${exitCode === exitCodes.softwareFault ? (stack ?? message) : message}\n`)
  process.send?.({ kind: 'failed', message, exitCode })
  process.exitCode = exitCode
  process.disconnect?.()
}
