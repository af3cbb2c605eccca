#!/usr/bin/env node
import { parseArgs } from 'node:util'
import { Problem, problems, toProblem } from '@haven/errors'
import { readLauncherConfig } from './settings.ts'
import { StartRefused } from './supervisor.ts'
import { parseServices, serviceNames } from './targets.ts'

const help = `haven: an OCI artifact platform on this machine

  haven up                      start in the background, return when healthy
  haven down                    stop what up started
  haven reset [--yes]           delete the installation (asks first)
  haven status                  what runs and how it is; exit code 0 when all is well
  haven logs [NAME]             the end of the logs of a process or service, or of all
  haven start --services A,B    run services in this process (${serviceNames.join(', ')})
  haven migrate                 bring the database to this version's schema, and stop
  haven rotate-keys             let a new key sign tokens now; those given out stay valid until their end
  haven doctor [--json]         look at settings, servers, store, certificates, names, clocks, disks and what clients see; say what to do
  haven settings                every setting of every service, with its default and meaning
  haven supervise               as up, but in the foreground
  haven import-helm-values FILE --out FOLDER [--base deploy/kubernetes] [--namespace haven]
                                write an overlay for kustomize from a values.yaml of harbor-helm; exit code 1: something is left to settle

Settings come from the environment: HAVEN_PORT (8080), HAVEN_HOST (127.0.0.1), HAVEN_HOME (.haven), HAVEN_SHAPE (single, split),
HAVEN_TLS (off, self-signed, files with PROXY_TLS_CERT and PROXY_TLS_KEY), HAVEN_HTTP_PORT (redirects to HTTPS), HAVEN_ADMIN_PASSWORD,
HAVEN_EXTERNAL_URL, DATABASE_URL, REDIS_URL, STORAGE_DRIVER and S3_* or MINIO_*.

Exit codes: 0 done, 1 no (status, doctor, import-helm-values), ${Object.values(problems)
  .filter(({ kind }) => kind.exitCode > 1)
  .map(({ kind }) => `${kind.exitCode} ${kind.name}`)
  .join(', ')}
`

const print = (line: string) => process.stdout.write(`${line}\n`)
// Whoever reads our lines may stop reading: `make logs | head`.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error
})

async function command(): Promise<number> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      help: { type: 'boolean', short: 'h' },
      services: { type: 'string' },
      yes: { type: 'boolean' },
      json: { type: 'boolean', default: false },
      out: { type: 'string' },
      base: { type: 'string', default: 'deploy/kubernetes' },
      namespace: { type: 'string', default: 'haven' },
    },
  })
  const [name, argument] = positionals
  if (values.help || name === undefined || name === 'help') {
    process.stdout.write(help)
    return 0
  }
  // Before the settings are read: what is wrong with them is what is asked.
  if (name === 'doctor') {
    const well = await (await import('./commands/doctor.ts')).doctor(process.env, values.json, print)
    // What does not answer must not hold us when everything is said.
    process.exit(well ? 0 : 1)
  }
  if (name === 'settings') {
    ;(await import('./commands/settings.ts')).printSettings(print)
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
      return (await (await import('./commands/status.ts')).status(config.home, print)) ? 0 : 1
    case 'logs':
      await (await import('./commands/logs.ts')).logs(config.home, argument, print)
      return 0
    case 'supervise':
      return (await import('./commands/supervise.ts')).supervise(config, process.env)
    case 'start': {
      if (values.services === undefined) throw problems.badUsage({ message: 'start needs --services A,B' })
      return (await import('./commands/start.ts')).start(parseServices(values.services), process.env)
    }
    case 'migrate':
      await (await import('./commands/migrate.ts')).migrateInstallation(process.env, print)
      return 0
    case 'rotate-keys':
      await (await import('./commands/rotate-keys.ts')).rotateKeys(config, process.env, print)
      return 0
    case 'import-helm-values': {
      const { out, base, namespace } = values
      if (argument === undefined || out === undefined) {
        throw problems.badUsage({ message: 'import-helm-values needs a values.yaml and --out FOLDER' })
      }
      const { importHelmValues } = await import('./commands/import-helm-values.ts')
      return importHelmValues({ values: argument, out, base, namespace }, print) ? 0 : 1
    }
    default:
      throw problems.badUsage({ message: `unknown command "${name}"; see haven --help` })
  }
}

/** The sentence for the person and the exit code; a bug shows its stack. */
function outcomeOf(error: unknown): { said: string; exitCode: number } {
  const { message, stack, code } = error as Error & { code?: string }
  if (error instanceof StartRefused) return { said: message, exitCode: error.exitCode }
  if (error instanceof Problem) return { said: message, exitCode: error.kind.exitCode }
  if (code?.startsWith('ERR_PARSE_ARGS')) return { said: message, exitCode: problems.badUsage.kind.exitCode }
  return { said: stack ?? message, exitCode: toProblem(error).kind.exitCode }
}

try {
  process.exitCode = await command()
} catch (error) {
  const { said, exitCode } = outcomeOf(error)
  process.stderr.write(`haven: ${said}\n`)
  process.exitCode = exitCode
}
