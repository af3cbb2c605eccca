import { given, podOf } from './kubernetes-objects.ts'
import type { Overlay } from './overlay.ts'
import type { HelmValues, Tree } from './values.ts'

/** The way in: an Ingress, or a Service of the chart's name. */
export function expose(values: HelmValues, overlay: Overlay): void {
  const type = values.oneOf('expose.type', ['ingress', 'clusterIP', 'nodePort', 'loadBalancer'], 'ingress')
  const encrypted = values.flag('expose.tls.enabled') ?? true
  const source = values.oneOf('expose.tls.certSource', ['auto', 'secret', 'none'], 'auto')
  const named = values.text('expose.tls.secret.secretName')
  const certificate: Certificate = {
    encrypted,
    // A Secret without a name is nobody's.
    source: source === 'secret' && named === undefined ? 'auto' : source,
    secretName: named ?? 'haven-tls',
    commonName: values.text('expose.tls.auto.commonName'),
  }
  // Of Notary's own Ingress, in charts before 1.13.
  if (values.text('expose.tls.secret.notarySecretName')) {
    overlay.say('expose.tls.secret.notarySecretName', 'not needed', 'signatures are stored beside the images')
  }
  const host = type === 'ingress' ? ingress(values, overlay, certificate) : service(type, values, overlay, certificate)
  externalUrl(values, overlay, `${encrypted ? 'https' : 'http'}://${host}`)
}

type Certificate = {
  encrypted: boolean
  source: 'auto' | 'secret' | 'none'
  secretName: string
  commonName: string | undefined
}

function externalUrl(values: HelmValues, overlay: Overlay, guess: string): void {
  const url = values.text('externalURL')
  if (url === undefined) overlay.say('externalURL', 'settle', `it is not given; ${guess} stands in HAVEN_EXTERNAL_URL`)
  else if (!/^https?:\/\/[^/\s]+\/?$/.test(url)) {
    overlay.say('externalURL', 'settle', 'it must be scheme and host, such as https://registry.example.com')
  }
  overlay.setting('HAVEN_EXTERNAL_URL', url ?? guess)
}

/** @returns the host of the Ingress */
function ingress(values: HelmValues, overlay: Overlay, { encrypted, source, secretName }: Certificate): string {
  overlay.component('ingress')
  const host = values.text('expose.ingress.hosts.core') ?? 'core.harbor.domain'
  const className = values.text('expose.ingress.className')
  const annotations = values.tree('expose.ingress.annotations')
  const labels = values.tree('expose.ingress.labels')
  // None: the controller has a certificate of its own for the host.
  const named = encrypted && source !== 'none'
  if (named && source === 'auto') askForCertificate(overlay, secretName, host)
  overlay.patch('Ingress', 'haven', {
    apiVersion: 'networking.k8s.io/v1',
    kind: 'Ingress',
    metadata: {
      name: 'haven',
      ...(labels && { labels }),
      annotations: {
        ...(!encrypted && { 'nginx.ingress.kubernetes.io/ssl-redirect': 'false' }),
        ...annotations,
      },
    },
    ...(className && { spec: { ingressClassName: className } }),
  })
  overlay.patch('Ingress', 'haven', [
    { op: 'replace', path: '/spec/rules/0/host', value: host },
    encrypted
      ? { op: 'replace', path: '/spec/tls', value: [{ hosts: [host], ...(named && { secretName }) }] }
      : { op: 'remove', path: '/spec/tls' },
  ])
  return host
}

function askForCertificate(overlay: Overlay, secretName: string, host: string): void {
  const command = `kubectl -n ${overlay.namespace} create secret tls ${secretName} --cert=FILE --key=FILE`
  overlay.say(
    'expose.tls.certSource',
    'settle',
    `no certificate is made: let cert-manager write the Secret ${secretName} for ${host}, or ${command}`,
  )
}

/** A Service of the chart's name beside ours, with the ports that clients know. @returns the host to reach it by */
function service(
  type: 'clusterIP' | 'nodePort' | 'loadBalancer',
  values: HelmValues,
  overlay: Overlay,
  certificate: Certificate,
): string {
  const at = `expose.${type}`
  const name = values.text(`${at}.name`) ?? 'harbor'
  const port = (kind: 'http' | 'https', otherwise: number) => ({
    port:
      (type === 'nodePort' ? values.whole(`${at}.ports.${kind}.port`) : values.whole(`${at}.ports.${kind}Port`)) ??
      otherwise,
    ...(type === 'nodePort' && {
      nodePort: values.whole(`${at}.ports.${kind}.nodePort`) ?? (kind === 'http' ? 30_002 : 30_003),
    }),
  })
  const ports: Tree[] = [{ name: 'door', targetPort: 'door', ...port('http', 80) }]
  const encrypted = port('https', 443)
  if (certificate.encrypted) {
    overlay.component('proxy-tls')
    ports.push({ name: 'door-tls', targetPort: 'door-tls', ...encrypted })
    if (certificate.source !== 'secret')
      askForCertificate(overlay, certificate.secretName, certificate.commonName ?? name)
    overlay.patch(
      'Deployment',
      'proxy',
      podOf('proxy', { volumes: [{ name: 'tls', secret: { secretName: certificate.secretName } }] }),
    )
  }
  const annotations = values.tree(`${at}.annotations`)
  const labels = values.tree(`${at}.labels`)
  const own = {
    clusterIP: () => ({ type: 'ClusterIP', ...given('clusterIP', values.text(`${at}.staticClusterIP`)) }),
    nodePort: () => ({ type: 'NodePort' }),
    loadBalancer: () => ({
      type: 'LoadBalancer',
      ...given('loadBalancerIP', values.text(`${at}.IP`)),
      ...given('loadBalancerSourceRanges', values.list(`${at}.sourceRanges`)),
    }),
  }
  overlay.resource('service.yaml', {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name, ...given('labels', labels), ...given('annotations', annotations) },
    spec: { ...own[type](), selector: { 'app.kubernetes.io/component': 'proxy' }, ports },
  })
  return certificate.commonName ?? name
}
