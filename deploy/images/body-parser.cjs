// Stands in for body-parser in a bundle, which Express loads with half a megabyte of tables of encodings: services read bodies by `readBody` of
// @haven/runtime, which ends them at a limit.
const absent = () => {
  throw new Error('a bundle has no body-parser: bodies are read by @haven/runtime')
}
module.exports = { json: absent, raw: absent, text: absent, urlencoded: absent }
