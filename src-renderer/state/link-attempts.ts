import { assertNever } from "#shared/base/assert.ts";
import type { LinkAttemptView } from "#shared/ipc/views.ts";
import { formatTook } from "../format.ts";
import { reasonWords } from "./link-reasons.ts";

/** One row of the history, in words. */
export interface AttemptWords {
  way: string;
  result: string;
  tone: "good" | "plain" | "bad";
  reason: string | null;
  took: string;
  /** What kinds of addresses each side offered. */
  offered: { here: string; there: string };
}

const PATH_NAMES = { lan: "Local network", direct: "Direct", relay: "TURN relay" };
const CANDIDATE_NAMES: Readonly<Record<string, string>> = {
  host: "own",
  srflx: "public",
  prflx: "met on the way",
  relay: "relayed",
};

/** Own, public, relayed: addresses of an end, without the addresses. */
export const candidateWords = (types: readonly string[]): string =>
  types.length === 0 ? "none" : types.map((type) => CANDIDATE_NAMES[type] ?? "other").join(", ");

const wayWords = ({ via, path }: LinkAttemptView): string => {
  if (via === "relay") return "Meeting server";
  return path === null ? "Direct or TURN" : PATH_NAMES[path];
};

const resultWords = (result: LinkAttemptView["result"], inUse: boolean): Pick<AttemptWords, "result" | "tone"> => {
  switch (result) {
    case "trying":
      return { result: "Trying…", tone: "plain" };
    case "connected":
      return { result: inUse ? "In use" : "Worked", tone: "good" };
    case "failed":
      return { result: "Failed", tone: "bad" };
    case "given_up":
      return { result: "Given up", tone: "plain" };
    case "replaced":
      return { result: "Worked, replaced", tone: "good" };
    case "lost":
      return { result: "Worked, then broke", tone: "bad" };
    case "closed":
      return { result: "Worked, closed", tone: "plain" };
    default:
      return assertNever(result, "result of an attempt");
  }
};

/** `inUse`: the link goes over this attempt now. */
export const attemptWords = (attempt: LinkAttemptView, inUse: boolean): AttemptWords => ({
  way: wayWords(attempt),
  ...resultWords(attempt.result, inUse),
  reason: attempt.reason === null ? null : reasonWords(attempt.reason),
  took: attempt.ms === null ? "" : formatTook(attempt.ms),
  offered: { here: candidateWords(attempt.localCandidates), there: candidateWords(attempt.remoteCandidates) },
});
