/** Whether `npm run verify` asks for the full counts instead of those of every change. */
export const isFullRun = process.env["WEIR_VERIFY"] === "full";

/** How often to repeat something: at every change, or in the full run. */
export const counted = (atEveryChange: number, inFull: number): number => (isFullRun ? inFull : atEveryChange);

/** How long tests/integration/soak.test.ts goes on: seconds at every change, and as long as one likes on request. */
export const soakMinutes = Number(process.env["WEIR_SOAK_MINUTES"] ?? counted(0.1, 20));
