import type { LinkReport, LinkView } from "#shared/ipc/views.ts";

/** What is shown until the report is here: the link as it is known, and nothing that would be a guess. */
export const emptyReport = (peerId: string, link: LinkView | undefined): LinkReport => ({
  link: link ?? {
    ...{ peerId, state: "disconnected", generation: 0, path: null, rttMs: null, reason: null, staleEvents: 0 },
  },
  policy: "direct",
  directAllowed: true,
  relayAllowed: true,
  selected: null,
  nat: "unknown",
  stun: null,
  droppedMessages: 0,
  attempts: [],
});
