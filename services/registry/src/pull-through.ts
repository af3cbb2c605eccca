import { type PushGrant } from '@haven/artifacts'
import { problems } from '@haven/errors'

/** @throws denied for a project whose content comes from upstream only; Harbor's text. */
export function requireOwnContent({ project }: PushGrant): void {
  if (project.registryId !== null) {
    throw problems.denied({ message: `can not push artifact to a proxy project: "${project.name}"` })
  }
}
