import { assertNever } from "#shared/base/assert.ts";
import type { TimeMs } from "#shared/base/env.ts";
import type { MessageId } from "#shared/base/ids.ts";
import { SESSION_RESET_WINDOW_MS, SESSION_RESETS_ANSWERED_MAX, SESSION_RESETS_MAX } from "#shared/base/limits.ts";

/**
 * Repairs the session with one peer: something of theirs could not be decrypted, because one of the two lost the session,
 * went back to an older one (a restored backup), or sent too far ahead. We make a fresh session from the peer's prekeys
 * and ask, inside it, for everything after `received` again. The peer has it in its outbox until we say that it is here.
 *
 * | phase \ event | unreadable             | timer    | renewed    | answered | requested (new)    |
 * |---------------|------------------------|----------|------------|----------|--------------------|
 * | calm          | renewing, or due       | -        | -          | -        | resend             |
 * | due           | - (comes later)        | renewing | -          | -        | resend             |
 * | renewing      | - (will be sent again) | -        | asked, ask | -        | asked, ask, resend |
 * | asked         | - (will be sent again) | -        | -          | calm     | resend             |
 * | asked, `lost` | renewing, or due       |          |            |          |                    |
 *
 * `due`: the peer was asked SESSION_RESETS_MAX times lately. `answered`: the peer's receipt for the request, which comes in
 * its order, after what it sent again. One that does not come within the window is waited for no more. `lost`: the session
 * that was made for the request is gone as well, so the answer will be as unreadable.
 * `requested` is the peer's own request; it made a fresh session for it, so ours need not be made any more. Both sides at
 * once are no trouble: either session opens, and the one that is used last stays. A copy of a request, and one more than
 * SESSION_RESETS_ANSWERED_MAX, change nothing, so there is no loop.
 */
export interface ResetState {
  readonly phase: ResetPhase;
  /** When we asked lately. */
  readonly askedAtMs: readonly TimeMs[];
  /** Requests of the peer that were answered, newest last. */
  readonly answered: readonly { readonly resetId: MessageId; readonly atMs: TimeMs }[];
}

/** What a repair is about: its id, and the highest number of the peer up to which nothing was missing when it began. */
interface Repair {
  readonly resetId: MessageId;
  readonly received: number;
}

export type ResetPhase =
  | { readonly kind: "calm" }
  | ({ readonly kind: "due"; readonly atMs: TimeMs } & Repair)
  | ({ readonly kind: "renewing" } & Repair)
  | ({ readonly kind: "asked" } & Repair);

export type ResetEvent =
  /** `lost`: there is no session at all. The id and the number are for a repair that begins now. */
  | ({ readonly type: "unreadable"; readonly nowMs: TimeMs; readonly lost: boolean } & Repair)
  | { readonly type: "timer"; readonly nowMs: TimeMs }
  | { readonly type: "renewed" }
  | { readonly type: "answered"; readonly resetId: MessageId }
  | { readonly type: "requested"; readonly nowMs: TimeMs; readonly resetId: MessageId };

export type ResetEffect =
  /** Make a fresh session; answered by `renewed`. */
  | { readonly type: "renew" }
  /** Queue the request to the peer. */
  | { readonly type: "ask"; readonly resetId: MessageId }
  | { readonly type: "wakeAt"; readonly atMs: TimeMs }
  /** Seal everything that the peer has not acknowledged again. */
  | { readonly type: "resend" };

type Outcome = readonly [ResetState, readonly ResetEffect[]];

/** More than can be answered within the window, so that no copy of one that counts is forgotten. */
const ANSWERED_REMEMBERED = 4 * SESSION_RESETS_ANSWERED_MAX;

export const initialReset: ResetState = { phase: { kind: "calm" }, askedAtMs: [], answered: [] };

/** A clock that was set back must not stop repairs, hence the absolute value. */
const isRecent = (atMs: TimeMs, nowMs: TimeMs): boolean => Math.abs(nowMs - atMs) < SESSION_RESET_WINDOW_MS;

const isUnderWay = ({ phase, askedAtMs }: ResetState, nowMs: TimeMs, lost: boolean): boolean => {
  switch (phase.kind) {
    case "calm":
      return false;
    case "due":
    case "renewing":
      return true;
    case "asked":
      return !lost && isRecent(askedAtMs.at(-1) ?? 0, nowMs);
    default:
      return assertNever(phase);
  }
};

const begin = (state: ResetState, { resetId, received }: Repair, nowMs: TimeMs): Outcome => {
  const askedAtMs = state.askedAtMs.filter((atMs) => isRecent(atMs, nowMs));
  const [oldest] = askedAtMs;
  if (oldest !== undefined && askedAtMs.length >= SESSION_RESETS_MAX) {
    const atMs = Math.min(oldest, nowMs) + SESSION_RESET_WINDOW_MS;
    return [{ ...state, askedAtMs, phase: { kind: "due", atMs, resetId, received } }, [{ type: "wakeAt", atMs }]];
  }
  const phase = { kind: "renewing", resetId, received } as const;
  return [{ ...state, phase, askedAtMs: [...askedAtMs, nowMs] }, [{ type: "renew" }]];
};

const ask = (state: ResetState): Outcome => {
  if (state.phase.kind !== "renewing") return [state, []];
  const { resetId, received } = state.phase;
  return [{ ...state, phase: { kind: "asked", resetId, received } }, [{ type: "ask", resetId }]];
};

const requested = (state: ResetState, resetId: MessageId, nowMs: TimeMs): Outcome => {
  const { answered } = state;
  if (answered.some((known) => known.resetId === resetId)) return [state, []];
  if (answered.filter(({ atMs }) => isRecent(atMs, nowMs)).length >= SESSION_RESETS_ANSWERED_MAX) return [state, []];
  const remembered = [...answered, { resetId, atMs: nowMs }].slice(-ANSWERED_REMEMBERED);
  const [after, effects] = ask({ ...state, answered: remembered });
  return [after, [{ type: "resend" }, ...effects]];
};

export const step = (state: ResetState, event: ResetEvent): Outcome => {
  const { phase } = state;
  switch (event.type) {
    case "unreadable":
      return isUnderWay(state, event.nowMs, event.lost) ? [state, []] : begin(state, event, event.nowMs);
    case "timer":
      if (phase.kind !== "due") return [state, []];
      if (phase.atMs > event.nowMs) return [state, [{ type: "wakeAt", atMs: phase.atMs }]];
      return begin(state, phase, event.nowMs);
    case "renewed":
      return ask(state);
    case "answered":
      if (phase.kind !== "asked" || phase.resetId !== event.resetId) return [state, []];
      return [{ ...state, phase: { kind: "calm" } }, []];
    case "requested":
      return requested(state, event.resetId, event.nowMs);
    default:
      return assertNever(event);
  }
};
