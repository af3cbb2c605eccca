/** The version of Harbor's API that is spoken, as clients look for it, and which product speaks it. */
export const version = 'v2.16.0-haven'
