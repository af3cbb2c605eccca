// HEALTHCHECK of an image, which has no shell: asks the service of this container whether it can work. Ends with 0 or 1.
const name = process.env.HAVEN_SERVICE.toUpperCase().replaceAll('-', '_')
const port = process.env[name === 'PROXY' ? 'PROXY_METRICS_PORT' : `${name}_PORT`]
const answer = await fetch(`http://127.0.0.1:${port}/readyz`, { signal: AbortSignal.timeout(4_000) })
process.stdout.write(`${await answer.text()}\n`)
process.exitCode = answer.ok ? 0 : 1
