import { once } from 'node:events'
import { request } from 'node:http'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { freePort } from '@haven/testkit'
import { parse } from 'yaml'
import { ADMIN, send, until } from './client.ts'
import { findTool, lacking, titled } from '@haven/testkit/tools'
import { run } from '../clients/tools.ts'
import { missingIn, readMetrics, type Served } from './prometheus.ts'
import { serviceNames, startSplit, type ServiceName, type Split } from './split.ts'

const folder = fileURLToPath(new URL('../../deploy/dashboards', import.meta.url))

type Target = { expr: string; legendFormat?: string }
type Asked = { where: string; expression: string; legend: string }

function ofDashboard(file: string): Asked[] {
  const { title, panels } = JSON.parse(readFileSync(join(folder, file), 'utf8')) as {
    title: string
    panels: { title: string; targets?: Target[] }[]
  }
  return panels.flatMap((panel) =>
    (panel.targets ?? []).map(({ expr, legendFormat = '' }) => ({
      where: `${title} / ${panel.title}`,
      expression: expr,
      legend: legendFormat,
    })),
  )
}

type Rule = { alert: string; expr: string; annotations: Record<string, string> }

const rules = (
  parse(readFileSync(join(folder, 'alerts.yaml'), 'utf8')) as { groups: { rules: Rule[] }[] }
).groups.flatMap((group) => group.rules)
const ofAlerts: Asked[] = rules.map(({ alert, expr, annotations }) => ({
  where: `alert ${alert}`,
  expression: expr,
  legend: Object.values(annotations).join(' '),
}))
const asked = [
  ...readdirSync(folder)
    .filter((file) => file.endsWith('.json'))
    .flatMap(ofDashboard),
  ...ofAlerts,
]

/** What Harbor's own dashboard asks for: contrib/grafana-dashboard/metrics-example.json, 2.12. */
const harborsDashboard = [
  'harbor_up',
  'harbor_project_quota_usage_byte',
  'harbor_project_member_total',
  'harbor_project_repo_total',
  'harbor_artifact_pulled',
  'harbor_core_http_request_total',
  'harbor_core_http_request_duration_seconds{quantile="0.9"}',
  'harbor_core_http_inflight_requests',
  'process_open_fds',
  'process_cpu_seconds_total',
  'go_threads',
  'go_goroutines',
  'go_memstats_heap_objects',
  'go_memstats_alloc_bytes',
  'go_memstats_next_gc_bytes',
  'go_gc_duration_seconds',
  'harbor_task_queue_latency',
  'harbor_task_concurrency{pool="",type=""}',
  'harbor_task_queue_size{type=""}',
  'harbor_task_scheduled_total',
  'registry_http_in_flight_requests{handler=""}',
  'registry_http_requests_total{method="",handler=""}',
  'registry_http_request_duration_seconds_bucket{le="",method="",handler=""}',
  'registry_http_request_size_bytes_bucket{le="",handler=""}',
  'registry_http_response_size_bytes_bucket{le="",handler=""}',
]
/** Of Harbor's names those that are not served, and what is instead, as the page tells it. */
const instead = new Map(
  [...readFileSync(join(folder, 'README.md'), 'utf8').matchAll(/^\| (`.*) \| (.*) \|$/gm)].flatMap(([, left, right]) =>
    [...left!.matchAll(/`(\w+)`/g)].map(([, name]) => [
      name!,
      [...right!.matchAll(/`(\w+)`/g)].map(([, served]) => served!),
    ]),
  ),
)

describe('what dashboards and alerts ask for', () => {
  it('is found missing when a name, a label of a selector, a grouping or a legend is no more', () => {
    const served = readMetrics('a_total{code="1",le="2"} 3\nb_seconds_sum 4\n')
    const fine =
      'sum by (code) (rate(a_total{code=~"4..|(x)"}[$__rate_interval])) / on (code) (b_seconds_sum > 0) and b_seconds_sum'
    expect(missingIn(fine, served, '{{code}} {{instance}}')).toEqual([])
    expect(missingIn(fine.replace('a_total', 'renamed_total'), served)).toEqual([
      'renamed_total',
      '{code} of b_seconds_sum',
    ])
    expect(missingIn('topk(3, a_total{kind!="x"})', served)).toEqual(['a_total{kind}'])
    expect(missingIn('sum by (kind) (a_total)', served)).toEqual(['{kind} of a_total'])
    expect(missingIn('a_total', served, '{{kind}}')).toEqual(['{kind} of a_total'])
    expect(missingIn('a_total', served, '{{ $labels.kind }} {{ $value | humanize }}')).toEqual(['{kind} of a_total'])
  })

  it('is told in every alert: what is wrong and what to do', () => {
    expect(rules.length).toBeGreaterThan(10)
    expect(rules.filter(({ annotations }) => !annotations.summary || !annotations.action)).toEqual([])
  })
})

const noPromql = lacking('promql')
const describePromql = noPromql ? describe.skip : describe

describePromql(titled('the parser of Prometheus', noPromql), () => {
  // As Grafana fills them in.
  const filled = asked.map(({ expression }) =>
    expression.replaceAll('$__rate_interval', '1m').replaceAll('$service', '.*'),
  )
  const promql = (expressions: readonly string[]) =>
    run(findTool('promql')!, [join(folder, 'alerts.yaml')], { input: `${expressions.join('\n')}\n` })

  it('takes all rules of alerts and all expressions of dashboards', async () => {
    expect(await promql(filled)).toMatchObject({
      code: 0,
      output: `${rules.length} rules, ${asked.length} expressions\n`,
    })
  })

  it('refuses what is no expression', async () => {
    expect(await promql(['rate(a[5m]) / on (b'])).toMatchObject({ code: 1 })
  })
})

describe('the metrics of services apart, after some traffic', () => {
  let platform: Split
  let metricsPort: string
  const texts = new Map<ServiceName, string>()
  const all: Served = new Map()

  const scrape = async (url: string) => {
    const reply = await send(url, 'GET')
    expect([url, reply.status]).toEqual([url, 200])
    return reply.text
  }
  const onPort = (query: string) => `http://127.0.0.1:${metricsPort}/figures${query}`

  beforeAll(async () => {
    metricsPort = String(await freePort())
    platform = await startSplit({
      METRIC_ENABLE: 'true',
      METRIC_PORT: metricsPort,
      METRIC_PATH: '/figures',
      EXPORTER_CACHE: '0',
      EXPORTER_PROJECTS: '2',
    })
    const { client } = platform
    await client.project('told')
    await client.project('left-out')
    const token = await client.token(ADMIN, 'told/app')
    const image = await client.pushImage('told/app', '1', token, 5_000)
    await client.pull('told/app', '1', token)
    await client.v2('GET', `told/app/blobs/${image.layer}`, token)
    const run = await client.mustApi('POST', '/system/gc/schedule', ADMIN, {
      schedule: { type: 'Manual' },
      parameters: {},
    })
    await until(
      'the job',
      async () =>
        (await client.api('GET', run.headers.get('location')!.replace('/api/v2.0', ''))).json as { job_status: string },
      ({ job_status: status }) => status === 'Success',
      30_000,
    )
    await until(
      'the pull is counted',
      () => scrape(platform.metricsUrl('exporter')),
      (text) => text.includes('harbor_artifact_pulled{project_name="told"} 1'),
      30_000,
    )
    for (const name of serviceNames) texts.set(name, await scrape(platform.metricsUrl(name)))
    for (const text of texts.values()) readMetrics(text, all)
  }, 180_000)

  afterAll(async () => {
    await platform?.[Symbol.asyncDispose]()
  }, 60_000)

  it('has all that dashboards and alerts ask for', () => {
    expect(asked.length).toBeGreaterThan(60)
    const missing = asked.flatMap(({ where, expression, legend }) =>
      missingIn(expression, all, legend).map((what) => `${where}: ${what}`),
    )
    expect(missing).toEqual([])
  })

  it('has what the dashboard of Harbor asks for, or what the page on dashboards names instead', () => {
    expect(
      harborsDashboard.flatMap((expression) => missingIn(expression, all)).filter((name) => !instead.has(name)),
    ).toEqual([])
    expect(instead.size).toBeGreaterThan(5)
    const served = (name: string) => all.has(name) || all.has(`${name}_count`)
    expect([...instead.keys()].filter(served)).toEqual([])
    expect([...instead.values()].flat().filter((name) => !served(name))).toEqual([])
  })

  it('has the names of Harbor’s components', () => {
    const names = {
      exporter: [
        'harbor_project_total',
        'harbor_project_repo_total',
        'harbor_project_member_total',
        'harbor_project_quota_usage_byte',
        'harbor_project_quota_byte',
        'harbor_artifact_pulled',
        'harbor_project_artifact_total',
        'harbor_health',
        'harbor_system_info',
        'harbor_up',
        'harbor_task_queue_size',
        'harbor_task_queue_latency',
        'harbor_task_scheduled_total',
        'harbor_task_concurrency',
        ...[
          'total_storage_consumption',
          'total_project_amount',
          'public_project_amount',
          'private_project_amount',
          'total_repo_amount',
          'public_repo_amount',
          'private_repo_amount',
        ].map((name) => `harbor_statistics_${name}`),
      ],
      core: [
        'harbor_core_http_inflight_requests',
        'harbor_core_http_request_total',
        'harbor_core_http_request_duration_seconds',
        'harbor_core_http_request_duration_seconds_sum',
        'harbor_core_http_request_duration_seconds_count',
      ],
      registry: [
        'registry_http_in_flight_requests',
        'registry_http_requests_total',
        'registry_http_request_duration_seconds_bucket',
        'registry_http_request_size_bytes_bucket',
        'registry_http_response_size_bytes_bucket',
        'registry_storage_action_seconds_bucket',
        ...['cpu_seconds_total', 'max_fds', 'open_fds', 'resident_memory_bytes', 'start_time_seconds'].map(
          (name) => `process_${name}`,
        ),
        'process_virtual_memory_bytes',
      ],
      jobservice: [
        'harbor_jobservice_info',
        'harbor_jobservice_task_total',
        'harbor_jobservice_task_process_time_seconds',
      ],
    }
    for (const [service, wanted] of Object.entries(names)) {
      const served = readMetrics(texts.get(service as ServiceName)!)
      expect([service, wanted.filter((name) => !served.has(name))]).toEqual([service, []])
    }
  })

  it('counts what was done', async () => {
    const { client } = platform
    const statistics = (await client.mustApi('GET', '/statistics')).json as Record<string, number>
    const exporter = texts.get('exporter')!
    for (const line of [
      `harbor_project_total{public="false"} ${statistics.private_project_count}`,
      `harbor_project_total{public="true"} ${statistics.public_project_count}`,
      `harbor_statistics_total_repo_amount ${statistics.total_repo_count}`,
      `harbor_statistics_total_storage_consumption ${statistics.total_storage_consumption}`,
      'harbor_project_repo_total{project_name="told",public="false"} 1',
      'harbor_project_member_total{project_name="told"} 1',
      'harbor_project_quota_byte{project_name="told"} -1',
      'harbor_project_artifact_total{project_name="told",public="false",artifact_type="IMAGE"} 1',
      'harbor_task_queue_size{type="GARBAGE_COLLECTION"} 0',
      'harbor_health 1',
      'harbor_up{component="registryctl"} 1',
      'haven_uploads_open 0',
    ])
      expect(exporter.split('\n')).toContain(line)
    expect(texts.get('core')).toContain(
      'harbor_core_http_request_total{method="POST",operation="createProject",code="201"} 2\n',
    )
    expect(texts.get('registry')).toMatch(
      /registry_http_requests_total\{handler="manifest",method="put",code="201"\} 1\n/,
    )
    const sized = (direction: string, handler: string) =>
      Number(
        new RegExp(`^registry_http_${direction}_size_bytes_sum\\{handler="${handler}"\\} (\\d+)$`, 'm').exec(
          texts.get('registry')!,
        )![1],
      )
    // The layer of 5000 bytes and the image's configuration came; the layer went, by the proxy; and what is around it.
    for (const bytes of [sized('request', 'blob_upload_chunk'), sized('response', 'blob')]) {
      expect(bytes).toBeGreaterThan(5000)
      expect(bytes).toBeLessThan(9000)
    }
    for (const handler of ['base', 'manifest', 'blob', 'blob_upload', 'blob_upload_chunk', 'tags', 'catalog'])
      expect(texts.get('registry')).toContain(`registry_http_in_flight_requests{handler="${handler}"} 0\n`)
    expect(texts.get('registry')).toMatch(/haven_store_bytes_total\{driver="files",direction="in"\} [5-9]\d{3}\n/)
    expect(texts.get('jobservice')).toMatch(
      /harbor_jobservice_task_total\{type="GARBAGE_COLLECTION",status="success"\} 1\n/,
    )
  })

  it('tells of an upload while it is on its way, and of what came when it ended', async () => {
    const { client } = platform
    const token = await client.token(ADMIN, 'told/app')
    const started = await client.v2('POST', 'told/app/blobs/uploads/', token)
    const upload = request(new URL(started.headers.get('location')!, client.url), {
      method: 'PATCH',
      headers: { Authorization: `Bearer ${token}`, 'Content-Type': 'application/octet-stream' },
    })
    const answered = once(upload, 'response')
    upload.write(Buffer.alloc(70_000))
    const told = (line: string) =>
      until(
        line,
        () => scrape(platform.metricsUrl('registry')),
        (text) => text.includes(`${line}\n`),
      )
    await told('registry_http_in_flight_requests{handler="blob_upload_chunk"} 1')
    upload.end(Buffer.alloc(10_000))
    await answered
    await told('registry_http_in_flight_requests{handler="blob_upload_chunk"} 0')
    const after = await scrape(platform.metricsUrl('registry'))
    const more = (le: number) => {
      const bucket = new RegExp(`request_size_bytes_bucket\\{le="${le}",handler="blob_upload_chunk"\\} (\\d+)`)
      return Number(bucket.exec(after)![1]) - Number(bucket.exec(texts.get('registry')!)![1])
    }
    expect([more(65_536), more(131_072)]).toEqual([0, 1])
  }, 60_000)

  it('has series of only so many projects, whatever paths clients ask for', async () => {
    const names = readMetrics(texts.get('exporter')!).get('harbor_project_quota_byte')!.get('project_name')
    expect(names).toEqual(new Set(['library', 'told']))
    expect(texts.get('exporter')).toContain('haven_exporter_projects_left_out 1\n')
    const { client } = platform
    const seriesOf = async (name: ServiceName) => (await scrape(platform.metricsUrl(name))).split('\n').length
    const ask = async (round: number) => {
      for (let i = 0; i < 20; i += 1) {
        await client.api('GET', `/projects/no-${round}-${i}/repositories/r-${i}/artifacts`)
        await client.v2('GET', `no/such-${round}-${i}/manifests/t-${i}`, null)
        await client.v2('GET', `no/${'!'.repeat(i)}/oddity`, null)
      }
    }
    await ask(1)
    const before = [await seriesOf('core'), await seriesOf('registry'), await seriesOf('proxy')]
    await ask(2)
    expect([await seriesOf('core'), await seriesOf('registry'), await seriesOf('proxy')]).toEqual(before)
  }, 60_000)

  it('are found on one port as Harbor’s are, by component', async () => {
    const served = async (query: string) => readMetrics(await scrape(onPort(query)))
    expect((await served('')).has('harbor_health')).toBe(true)
    expect((await served('?comp=core')).has('harbor_core_http_request_total')).toBe(true)
    expect((await served('?comp=registry')).has('registry_http_requests_total')).toBe(true)
    expect((await served('?comp=jobservice')).has('harbor_jobservice_info')).toBe(true)
    expect((await send(onPort('?comp=nobody'), 'GET')).status).toBe(404)
    expect((await send(onPort('').replace('figures', 'metrics'), 'GET')).status).toBe(404)
    expect((await send(`${platform.client.url}/metrics`, 'GET')).text).not.toContain('# TYPE')
  })

  it('say that a component is down, and still tell the rest', async () => {
    platform.processes.find(({ name }) => name === 'registryctl')!.child.kill('SIGKILL')
    await until(
      'it is told',
      () => scrape(onPort('')),
      (text) => text.includes('harbor_up{component="registryctl"} 0\n') && text.includes('harbor_health 0\n'),
    )
    expect(await scrape(onPort(''))).toContain('harbor_up{component="core"} 1\n')
  })
})
