import type { LinkAttemptView, LinkReport, ServerView } from "#shared/ipc/views.ts";
import { formatRtt, formatTook } from "../format.ts";
import { reasonWords } from "./link-reasons.ts";
import { WAY_WORDS, wayOf } from "./link-words.ts";

/** How far a test of the connection is. `before` is the newest generation when it began. */
export type TestState =
  | { kind: "idle" }
  | { kind: "testing"; startedAtMs: number; before: number }
  | { kind: "done"; atMs: number; before: number; outcome: TestOutcome }
  | { kind: "failed"; message: string };

export interface TestOutcome {
  tone: "good" | "warn" | "bad";
  title: string;
  text: string;
}

export type StepState = "waiting" | "active" | "done" | "failed";

export interface TestStep {
  label: string;
  state: StepState;
}

export const newestGeneration = ({ link, attempts }: LinkReport): number =>
  Math.max(link.generation, ...attempts.map((attempt) => attempt.generation));

/** What was tried since the test began, oldest first. */
const triedSince = (report: LinkReport, before: number): LinkAttemptView[] =>
  report.attempts.filter((attempt) => attempt.generation > before);

const hasWorked = ({ result }: LinkAttemptView): boolean =>
  result === "connected" || result === "replaced" || result === "lost" || result === "closed";

/** The way of a connection in four steps, the same four before, during and after a test. */
export const testSteps = (state: TestState, report: LinkReport, server: ServerView | null): TestStep[] => {
  const tried = "before" in state ? triedSince(report, state.before) : [];
  const isOver = state.kind === "done" || state.kind === "failed";
  const worked = tried.some(hasWorked);
  const reached = [
    server?.state === "connected",
    tried.length > 0,
    worked || tried.some((attempt) => attempt.remoteCandidates.length > 0),
    worked,
  ];
  const labels = ["Meeting server", "Invitation to connect", "Answer", "Path and proof of identity"];
  // Without a doubt: whoever came to a later step has been through the earlier ones.
  const last = reached.lastIndexOf(true);
  return labels.map((label, index) => {
    if (state.kind === "idle") return { label, state: "waiting" };
    if (index <= last) return { label, state: "done" };
    if (isOver) return { label, state: index === last + 1 ? "failed" : "waiting" };
    return { label, state: index === last + 1 ? "active" : "waiting" };
  });
};

/** `name` is the contact; `online` whether the meeting server sees that person. */
export const testOutcome = (
  report: LinkReport,
  before: number,
  { name, online }: { name: string; online: boolean },
): TestOutcome => {
  const tried = triedSince(report, before);
  const newest = tried.findLast(hasWorked);
  if (report.link.state === "connected" && newest !== undefined) return worked(report, newest);
  const last = tried.at(-1);
  const why = last?.reason == null ? null : reasonWords(last.reason);
  if (report.link.state === "connected") {
    const text = why === null ? "It is still being tried." : `${why}.`;
    return { tone: "warn", title: "The connection in use goes on, but no fresh one came about", text };
  }
  if (report.link.reason === "peer_offline" || last?.reason === "peer_offline" || !online)
    return {
      tone: "warn",
      title: `${name} is offline`,
      text: "The test needs both of you. It connects by itself later.",
    };
  if (last === undefined)
    return { tone: "bad", title: "Nothing could be tried", text: `${name} did not take up the invitation to connect.` };
  if (last.result === "trying")
    return { tone: "warn", title: "No result yet", text: "It is still being tried; the history below follows it." };
  return { tone: "bad", title: "No connection came about", text: `${why ?? "The attempt ended"}.` };
};

const worked = (report: LinkReport, attempt: LinkAttemptView): TestOutcome => {
  const { rttMs } = report.link;
  const figures = [
    attempt.ms === null ? null : `Connected in ${formatTook(attempt.ms)}`,
    rttMs === null ? null : `${formatRtt(rttMs)} round trip`,
  ].filter((figure) => figure !== null);
  return { tone: "good", title: `It works: ${WAY_WORDS[wayOf(report)].name}`, text: figures.join(", ") };
};
