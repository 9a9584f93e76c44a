import { readFileSync } from "node:fs";

/** Where served-headless-process.ts writes: a line for each chunk that it hands to a link, and each list that it goes by. */
export const SERVED_VARIABLE = "WEIR_TEST_SERVED";

export type ServedLine =
  | { readonly fileId: string; readonly sentTo: string }
  | { readonly fileId: string; readonly sharedWith: readonly string[] };

/** How many chunks of a file a seeder sent to somebody before it knew a list without them, and after. */
export const servedAround = (log: string, fileId: string, userId: string): { before: number; after: number } => {
  const served = { before: 0, after: 0 };
  let when: keyof typeof served | null = null;
  for (const text of readFileSync(log, "utf8").split("\n")) {
    if (text === "") continue;
    const line = JSON.parse(text) as ServedLine;
    if (line.fileId !== fileId) continue;
    if ("sharedWith" in line) when = line.sharedWith.includes(userId) ? "before" : when === null ? null : "after";
    else if (line.sentTo === userId) served[when ?? "before"] += 1;
  }
  if (when !== "after") throw new Error("this seeder never knew a list without them");
  return served;
};
