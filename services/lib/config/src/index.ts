export { ConfigProblem, defineConfig, describeConfig, readConfig, secretsOf } from './config.ts'
export type { Config, ConfigOf, Definition, Environment, Settings, WrongSetting } from './config.ts'
export { bool, bytes, duration, file, int, list, oneOf, port, secret, text, url } from './settings.ts'
export type { NamedFile, Options, Setting } from './settings.ts'
