// Stands in for swagger-ui-dist/absolute-path in a bundle: the folder that bundle.ts fills.
module.exports = () => require('node:path').join(__dirname, '../swagger-ui')
