import { readFileSync } from 'node:fs'

/** Harbor's API as a document of OpenAPI in JSON, for clients. */
export const harborDocument = (): Buffer => readFileSync(new URL('./gen/openapi/harbor-v2.0.json', import.meta.url))
