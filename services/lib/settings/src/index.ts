export { changeSettings, overwriteSettings, parseSettings, type ChangeDeps } from './change-settings.ts'
export { keys, type SettingName, type SettingValues } from './keys.ts'
export { Settings, type SettingsReader } from './settings.ts'
