import type { HostView, LinkReport } from "#shared/ipc/views.ts";
import { formatTook } from "../format.ts";
import type { Advice } from "./link-advice.ts";
import { isKnownReason } from "./link-reasons.ts";
import { wayOf } from "./link-words.ts";

/**
 * The report as text to hand on to whoever helps. It is put together from words of our own only: no address, no name, no
 * user id, and of reasons only those that are known here.
 */
export const reportText = (
  report: LinkReport,
  advice: readonly Pick<Advice, "id">[],
  facts: { host: HostView | null; online: boolean; serverState: string; nowMs: number },
): string => {
  const { link, selected, stun } = report;
  const lines = [
    "Weir connection report",
    `weir: ${facts.host?.version ?? "?"} ${facts.host?.platform ?? "?"} ${facts.host?.kind ?? "?"}`,
    `meeting server: ${facts.serverState}; contact ${facts.online ? "online" : "offline"}`,
    `link: ${link.state}, way ${wayOf(report)}, round trip ${link.rttMs === null ? "?" : `${link.rttMs.toFixed(1)} ms`}`,
    `reason: ${code(link.reason)}`,
    `pair: ${selected === null ? "-" : `${selected.local} to ${selected.remote}`}`,
    `policy: ${report.policy} (direct ${allowed(report.directAllowed)}, relay ${allowed(report.relayAllowed)})`,
    `nat: ${report.nat}; stun servers: ${stun === null ? "not asked" : `${stun.answered} of ${stun.asked} answered`}`,
    `stale events: ${link.staleEvents}; dropped messages: ${report.droppedMessages}`,
    `findings: ${advice.map(({ id }) => id).join(", ")}`,
    `attempts, newest first: ${report.attempts.length}`,
    ...report.attempts.toReversed().map((attempt) => attemptLine(attempt, facts.nowMs)),
  ];
  return `${lines.join("\n")}\n`;
};

const allowed = (is: boolean): string => (is ? "allowed" : "not allowed");

const code = (reason: string | null): string => {
  if (reason === null) return "-";
  return isKnownReason(reason) ? reason : "other";
};

const attemptLine = (attempt: LinkReport["attempts"][number], nowMs: number): string => {
  const { via, path, result, reason, ms, localCandidates, remoteCandidates, servers, startedAtMs } = attempt;
  const agoS = Math.max(0, Math.round((nowMs - startedAtMs) / 1000));
  const asked = servers === null ? "-" : `${servers.stun}/${servers.turn}`;
  return [
    `- ${agoS} s ago`,
    `${via}${path === null ? "" : ` (${path})`}`,
    `${result}${reason === null ? "" : ` ${code(reason)}`}`,
    ms === null ? "under way" : formatTook(ms),
    `offered ${list(localCandidates)} here, ${list(remoteCandidates)} there`,
    `stun/turn named ${asked}`,
  ].join("; ");
};

const list = (types: readonly string[]): string => (types.length === 0 ? "none" : types.join("+"));
