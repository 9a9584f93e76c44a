/**
 * How many random cases a simulation plays: `perCommit` of them in `npm test`, as many as WEIR_SIM_RUNS says where it is
 * set, as `npm run verify` does.
 */
export const simRuns = (perCommit: number): number => {
  const wanted = Number(process.env["WEIR_SIM_RUNS"] ?? "");
  return Number.isSafeInteger(wanted) && wanted > 0 ? wanted : perCommit;
};
