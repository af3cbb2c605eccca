import { bytes, defineConfig, duration, file, int, port, text, url } from '@haven/config'
import { pairSecret, serviceSettings } from '@haven/runtime'

/** The settings of the log collector. */
export const logCollectorConfig = defineConfig('LOG_COLLECTOR', {
  ...serviceSettings({ port: 5006 }),
  logCollectorSecret: pairSecret('LOG_COLLECTOR_SECRET', 'What services show to the log collector.'),
  path: text({ default: '.haven/logs/services', doc: 'Folder of the log files, one a service.' }),
  maxFileBytes: bytes({ default: '64MiB', min: '64KiB', doc: 'A file of this size is rotated and compressed.' }),
  maxAgeMs: duration({ default: '24h', min: '1m', doc: 'A file of this age is rotated and compressed.' }),
  keep: int({ default: 14, min: 0, max: 1000, doc: 'Rotated files kept for each service.' }),
  maxTotalBytes: bytes({ default: '2GiB', doc: 'Rotated files of all services together; the oldest go first.' }),
  forwardUrl: url({
    optional: true,
    protocols: ['tcp', 'udp', 'tls'],
    doc: 'Where lines are forwarded to as RFC 5424: tcp://host:514, udp://host:514 or tls://host:6514.',
  }),
  forwardCa: file({
    optional: true,
    doc: 'Certificate authority of that receiver, in PEM; with it no other is trusted.',
  }),
  forwardBufferBytes: bytes({
    default: '4MiB',
    doc: 'Kept for a receiver that is away; beyond, the oldest are dropped.',
  }),
  syslogHost: text({ default: '127.0.0.1', doc: 'Address where syslog is received. It has no sender check.' }),
  syslogPort: port({ optional: true, doc: 'Port where syslog is received over TCP and UDP; not set: nowhere.' }),
})
