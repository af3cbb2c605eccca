import { version } from '@haven/proto'
import { Family } from '@haven/runtime'
import type { Figures } from './figures.ts'

/** Harbor's families of its exporter (harbor-features.md W), then ours. */
export function presentFigures(figures: Figures): string {
  return [...projects(figures), ...statistics(figures), ...tasks(figures), ...backlogs(figures)]
    .map((family) => family.text())
    .join('')
}

const gauge = (name: string, help: string) => new Family(name, 'gauge', help)

function projects({ projects, each, authMode, selfRegistration }: Figures): Family[] {
  const total = gauge('harbor_project_total', 'Projects by visibility.')
    .add({ public: 'true' }, projects.public)
    .add({ public: 'false' }, projects.private)
  const leftOut = gauge(
    'haven_exporter_projects_left_out',
    'Projects without series of their own (EXPORTER_PROJECTS).',
  ).add({}, projects.public + projects.private - each.length)
  const info = gauge('harbor_system_info', 'Always 1.').add(
    { auth_mode: authMode, harbor_version: version, self_registration: String(selfRegistration) },
    1,
  )
  const repositories = gauge('harbor_project_repo_total', 'Repositories of a project.')
  const members = gauge('harbor_project_member_total', 'Members of a project.')
  const used = gauge('harbor_project_quota_usage_byte', 'Bytes that a project uses.')
  const quota = gauge('harbor_project_quota_byte', 'Bytes that a project may use; -1: any number.')
  const pulled = gauge('harbor_artifact_pulled', 'Pulls from a project.')
  const artifacts = gauge('harbor_project_artifact_total', 'Artifacts of a project by type.')
  for (const project of each) {
    const name = { project_name: project.name }
    const visibility = { public: String(project.public) }
    repositories.add({ ...name, ...visibility }, project.repositories)
    members.add(name, project.members)
    used.add(name, project.usedBytes)
    quota.add(name, project.hardBytes)
    pulled.add(name, project.pulls)
    for (const { type, artifacts: n } of project.artifacts) {
      artifacts.add({ ...name, ...visibility, artifact_type: type }, n)
    }
  }
  return [total, leftOut, info, repositories, members, used, quota, pulled, artifacts]
}

function statistics({ projects, repositories, storedBytes }: Figures): Family[] {
  const one = (name: string, help: string, value: number) => gauge(`harbor_statistics_${name}`, help).add({}, value)
  return [
    one('total_storage_consumption', 'Bytes of all blobs.', storedBytes),
    one('total_project_amount', 'Projects.', projects.public + projects.private),
    one('public_project_amount', 'Public projects.', projects.public),
    one('private_project_amount', 'Private projects.', projects.private),
    one('total_repo_amount', 'Repositories.', repositories.public + repositories.private),
    one('public_repo_amount', 'Repositories of public projects.', repositories.public),
    one('private_repo_amount', 'Repositories of private projects.', repositories.private),
  ]
}

function tasks({ tasks: { queues, running, scheduled } }: Figures): Family[] {
  const size = gauge('harbor_task_queue_size', 'Tasks that wait, by type.')
  const latency = gauge(
    'harbor_task_queue_latency',
    'Seconds that the oldest task which could run has waited, by type.',
  )
  const concurrency = gauge('harbor_task_concurrency', 'Tasks that run, by type and worker pool.')
  for (const { jobType: type, waiting, latencySeconds } of queues) {
    size.add({ type }, waiting)
    latency.add({ type }, latencySeconds)
    const ofType = running.filter(({ jobType }) => jobType === type)
    if (ofType.length === 0) concurrency.add({ type, pool: '' }, 0)
    for (const { pool, tasks } of ofType) concurrency.add({ type, pool }, tasks)
  }
  return [
    size,
    latency,
    concurrency,
    gauge('harbor_task_scheduled_total', 'Tasks that wait for their time.').add({}, scheduled),
  ]
}

function backlogs({ backlog: { trash, uploads }, outbox }: Figures): Family[] {
  const one = (name: string, help: string, value: number) => gauge(`haven_${name}`, help).add({}, value)
  return [
    one('trash_objects', 'Objects that wait to be erased from the store.', trash.objects),
    one('trash_bytes', 'Their bytes.', trash.bytes),
    one('trash_overdue_objects', 'Those that should have been erased an hour ago.', trash.overdue),
    one('trash_failing_objects', 'Those that could not be erased when it was tried last.', trash.failing),
    one('uploads_open', 'Uploads that are not finished.', uploads.open),
    one('uploads_open_bytes', 'Bytes that they have brought.', uploads.bytes),
    one('uploads_oldest_seconds', 'Age of the oldest.', uploads.oldestSeconds),
    one('outbox_events', 'Events that no handler has taken.', outbox.events),
    one('outbox_lag_seconds', 'How long the oldest of them waits.', outbox.oldestSeconds),
    one('audit_unsent_lines', 'Lines of the audit log that their receiver has not taken.', outbox.unsentAuditLines),
  ]
}
