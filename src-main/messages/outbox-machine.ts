import { assertNever } from "#shared/base/assert.ts";
import type { TimeMs } from "#shared/base/env.ts";
import type { Generation } from "#shared/base/ids.ts";
import { LINK_ENVELOPES_IN_FLIGHT_MAX, OUTBOX_RETRY_BASE_MS, OUTBOX_RETRY_MAX_MS } from "#shared/base/limits.ts";

/**
 * Sends the durable contents for one peer in order: one machine per peer. The rows are in the database; the machine only
 * knows which one it works on. With a link everything that the peer has not acknowledged goes over it, from the first
 * row, whatever the mailbox has already; without one what the mailbox does not have is put there.
 *
 * Work:
 *   idle      nothing to do, or no way to the peer
 *   loading   asked the database for the next row (`load` -> `loaded`)
 *   sealing   the row has no ciphertext yet (`seal` -> `sealed` | `sealFailed`)
 *   putting   the row is on its way to the mailbox (`put` -> `stored` | `putFailed`)
 *   full      the link's window of unacknowledged envelopes is full
 *   blocked   nothing may be sent: the key changed, or the contact is blocked
 *   waiting   after a failure, until `untilMs`
 *
 * | work \ event | added, receiptsDue | loaded        | sealed, stored | failed  | linkUp, ackTimeout | linkDown, serverUp | acked | woken   |
 * |--------------|--------------------|---------------|----------------|---------|---------|--------------------|-------|---------|
 * | idle         | next               | stale         | stale          | stale   | next    | next               | -     | next    |
 * | loading      | -                  | seal/put/send | stale          | stale   | next    | next               | -     | -       |
 * | sealing      | -                  | stale         | next           | waiting | -       | -                  | -     | -       |
 * | putting      | -                  | stale         | next           | waiting | -       | -                  | -     | -       |
 * | full         | -                  | stale         | stale          | stale   | next    | next               | next  | -       |
 * | blocked      | -                  | stale         | stale          | stale   | -       | -                  | -     | next    |
 * | waiting      | -                  | stale         | stale          | stale   | next    | next               | -     | next    |
 *
 * `resealed` is like `ackTimeout`, with or without a link.
 *
 * "next" asks for the next row of the present way; it is idle without one. A `loaded` answers one `load` by its `query`
 * number, so that an answer for a way that is gone is dropped.
 */
export interface OutboxState {
  readonly server: "up" | "down";
  readonly link: LinkWay | null;
  readonly work: Work;
  /** Failures since the last success; sets the length of the next wait. */
  readonly attempt: number;
  readonly queries: number;
}

interface LinkWay {
  readonly generation: Generation;
  /** The last row handed over on this generation. */
  readonly sentSeq: number;
  readonly unacked: readonly number[];
}

export type Work =
  | { readonly kind: "idle" }
  | { readonly kind: "loading"; readonly query: number }
  | { readonly kind: "sealing"; readonly seq: number }
  | { readonly kind: "putting"; readonly seq: number }
  | { readonly kind: "full" }
  | { readonly kind: "blocked" }
  | { readonly kind: "waiting"; readonly untilMs: TimeMs };

/** What the database has: a row, nothing, or something that must not be sent now. */
export type Next =
  | { readonly kind: "row"; readonly seq: number; readonly sealed: boolean }
  | { readonly kind: "none" }
  | { readonly kind: "blocked" };

export type OutboxEvent =
  | { readonly type: "added" }
  | { readonly type: "receiptsDue" }
  | { readonly type: "loaded"; readonly query: number; readonly next: Next }
  | { readonly type: "sealed"; readonly seq: number }
  /** `jitter` is uniform in [0, 1). */
  | { readonly type: "sealFailed"; readonly seq: number; readonly nowMs: TimeMs; readonly jitter: number }
  | { readonly type: "stored"; readonly seq: number }
  | { readonly type: "putFailed"; readonly seq: number; readonly nowMs: TimeMs; readonly jitter: number }
  | { readonly type: "linkUp"; readonly generation: Generation }
  | { readonly type: "linkDown" }
  | { readonly type: "serverUp" }
  | { readonly type: "serverDown" }
  | { readonly type: "acked"; readonly seq: number }
  /** Something on this link was not acknowledged in time: everything that was not is sent again. */
  | { readonly type: "ackTimeout"; readonly generation: Generation }
  /** All rows have lost their ciphertexts: everything is sent again, from the first one. */
  | { readonly type: "resealed" }
  /** The time of a wait has come, or what may be sent has changed. */
  | { readonly type: "woken" };

export type OutboxEffect =
  /** The first row after `afterSeq`; with null the first that the mailbox does not have. */
  | { readonly type: "load"; readonly query: number; readonly afterSeq: number | null }
  | { readonly type: "seal"; readonly seq: number }
  | { readonly type: "put"; readonly seq: number }
  | { readonly type: "transmit"; readonly seq: number; readonly generation: Generation }
  | { readonly type: "wakeAt"; readonly atMs: TimeMs };

type Outcome = readonly [OutboxState, readonly OutboxEffect[]];

export const initialOutbox: OutboxState = {
  server: "down",
  link: null,
  work: { kind: "idle" },
  attempt: 0,
  queries: 0,
};

const next = (state: OutboxState): Outcome => {
  if (state.link !== null && state.link.unacked.length >= LINK_ENVELOPES_IN_FLIGHT_MAX)
    return [{ ...state, work: { kind: "full" } }, []];
  if (state.link === null && state.server === "down") return [{ ...state, work: { kind: "idle" } }, []];
  const query = state.queries + 1;
  const afterSeq = state.link === null ? null : state.link.sentSeq;
  return [{ ...state, queries: query, work: { kind: "loading", query } }, [{ type: "load", query, afterSeq }]];
};

/** A new way, or one that is gone: what is running in the background is left to end, everything else starts again. */
const wayChanged = (state: OutboxState): Outcome => {
  switch (state.work.kind) {
    case "idle":
    case "loading":
    case "full":
    case "waiting":
      return next(state);
    case "sealing":
    case "putting":
    case "blocked":
      return [state, []];
    default:
      return assertNever(state.work);
  }
};

const loaded = (state: OutboxState, row: Next): Outcome => {
  switch (row.kind) {
    case "none":
      return [{ ...state, work: { kind: "idle" } }, []];
    case "blocked":
      return [{ ...state, work: { kind: "blocked" } }, []];
    case "row": {
      const { seq } = row;
      if (!row.sealed) return [{ ...state, work: { kind: "sealing", seq } }, [{ type: "seal", seq }]];
      if (state.link === null) return [{ ...state, work: { kind: "putting", seq } }, [{ type: "put", seq }]];
      const { generation, unacked } = state.link;
      const sent = { ...state, link: { generation, sentSeq: seq, unacked: [...unacked, seq] } };
      const [after, effects] = next(sent);
      return [after, [{ type: "transmit", seq, generation }, ...effects]];
    }
    default:
      return assertNever(row);
  }
};

const wait = (state: OutboxState, nowMs: TimeMs, jitter: number): Outcome => {
  const attempt = state.attempt + 1;
  const ceiling = Math.min(OUTBOX_RETRY_MAX_MS, OUTBOX_RETRY_BASE_MS * 2 ** Math.min(state.attempt, 16));
  const untilMs = nowMs + Math.round(ceiling / 2 + (ceiling / 2) * jitter);
  return [{ ...state, attempt, work: { kind: "waiting", untilMs } }, [{ type: "wakeAt", atMs: untilMs }]];
};

export const step = (state: OutboxState, event: OutboxEvent): Outcome => {
  const { work } = state;
  switch (event.type) {
    case "added":
    case "receiptsDue":
      return work.kind === "idle" ? next(state) : [state, []];
    case "loaded":
      if (work.kind !== "loading" || work.query !== event.query) return [state, []];
      return loaded(state, event.next);
    case "sealed":
      if (work.kind !== "sealing" || work.seq !== event.seq) return [state, []];
      return next({ ...state, attempt: 0 });
    case "stored":
      if (work.kind !== "putting" || work.seq !== event.seq) return [state, []];
      return next({ ...state, attempt: 0 });
    case "sealFailed":
      if (work.kind !== "sealing" || work.seq !== event.seq) return [state, []];
      return wait(state, event.nowMs, event.jitter);
    case "putFailed":
      if (work.kind !== "putting" || work.seq !== event.seq) return [state, []];
      // The link came up while the mailbox did not answer: no reason to wait.
      return state.link === null ? wait(state, event.nowMs, event.jitter) : next(state);
    case "linkUp":
      if (state.link?.generation === event.generation) return [state, []];
      return wayChanged({
        ...state,
        attempt: 0,
        link: { generation: event.generation, sentSeq: 0, unacked: [] },
      });
    case "linkDown":
      return state.link === null ? [state, []] : wayChanged({ ...state, link: null });
    case "serverUp":
      if (state.server === "up") return [state, []];
      return state.link === null
        ? wayChanged({ ...state, server: "up", attempt: 0 })
        : [{ ...state, server: "up" }, []];
    case "serverDown":
      return [{ ...state, server: "down" }, []];
    case "acked": {
      if (state.link === null) return [state, []];
      const unacked = state.link.unacked.filter((seq) => seq !== event.seq);
      const after = { ...state, link: { ...state.link, unacked } };
      return work.kind === "full" ? next(after) : [after, []];
    }
    case "ackTimeout":
      if (state.link?.generation !== event.generation || state.link.unacked.length === 0) return [state, []];
      return wayChanged({ ...state, link: { generation: event.generation, sentSeq: 0, unacked: [] } });
    case "resealed": {
      const link = state.link === null ? null : { ...state.link, sentSeq: 0, unacked: [] };
      return wayChanged({ ...state, link });
    }
    case "woken":
      return work.kind === "blocked" || work.kind === "waiting" || work.kind === "idle" ? next(state) : [state, []];
    default:
      return assertNever(event);
  }
};
