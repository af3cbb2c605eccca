/** Ends a run with the one line that tells its outcome: `N passed, N failed`, and `, N skipped` when there are any. */
export default class ClosingLine {
  onRunComplete(_contexts, results) {
    const { numPassedTests, numFailedTests, numPendingTests, numRuntimeErrorTestSuites } = results
    const failed = numFailedTests + numRuntimeErrorTestSuites
    const skipped = numPendingTests === 0 ? '' : `, ${numPendingTests} skipped`
    process.stderr.write(`${numPassedTests} passed, ${failed} failed${skipped}\n`)
  }
}
