import { ensureAppBuilt } from "../../scripts/app-build.ts";

/** Tests of what people get must not pass on yesterday's `out/`. `npm test` has built it; a single test may come first. */
export const ensureFreshBuild = async (): Promise<void> => {
  const build = await ensureAppBuilt();
  if (build.type === "failed" || build.type === "impossible") throw new Error(build.message);
};
