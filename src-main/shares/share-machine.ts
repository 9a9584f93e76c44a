import { assertNever } from "#shared/base/assert.ts";
import { toHex } from "#shared/base/bytes.ts";
import type { UserId } from "#shared/base/ids.ts";
import type { LogCrypto } from "#shared/base/log-crypto.ts";
import type { Step } from "#shared/base/machine.ts";
import type { AppError } from "#shared/base/result.ts";
import {
  append,
  closingOf,
  draftFor,
  isMember,
  type Limits,
  operationHash,
  type ShareDraft,
  type ShareList,
  type ShareOperation,
  type ShareWish,
} from "#shared/shares/share-log.ts";

/**
 * One profile's copy of one file's share list, and how it follows the canonical one at the server.
 *
 * - The list only grows, by operations that this profile has checked; it never goes back and is never merged.
 * - `confirmed`: the server was asked over the present connection, and nobody has spoken of a newer version since. Only
 *   then may somebody who is not the owner serve: without the server a seeder cannot know that it missed nothing.
 * - What the person wants (`wishes`) is turned into an operation for the newest end of the list; when somebody else was
 *   faster it is made anew for the new end.
 */
export interface Replica {
  readonly self: UserId;
  readonly list: ShareList;
  /** Hexadecimal; `heads[i]` is the head of version i + 1. */
  readonly heads: readonly string[];
  readonly connected: boolean;
  readonly confirmed: boolean;
  readonly fetching: "no" | "running" | "again";
  /** Our version when the fetch that runs, or ran last, was asked. */
  readonly askedAt: number;
  /** The version that the operation on its way builds on, and the one on which the last conflicting one was built; -1 for none. */
  readonly submittedAt: number;
  readonly conflictAt: number;
  /** The newest version that anybody spoke of. */
  readonly toldVersion: number;
  /** The newest version that the owner spoke of: below it nobody is served, whatever the server says. */
  readonly ownerVersion: number;
  /** The server, or somebody, has another operation under a version that we know. Nobody but the owner serves then. */
  readonly forked: boolean;
  readonly wishes: readonly Wish[];
  readonly submitting: Wish | null;
  /** Told to the person already, so that a lying server does not fill the screen. */
  readonly reported: ReadonlySet<ReportType>;
  /** Who spoke of a newer version last. */
  readonly toldBy: UserId | null;
}

export interface Wish {
  readonly id: number;
  readonly what: ShareWish;
}

/**
 *   share_forked       there are two histories: the server shows different people different lists
 *   share_withheld     a member knows a newer version than the server admits
 *   share_forged       an operation that the server gave does not hold
 *   share_rolled_back  the server has forgotten operations that it once gave
 */
export type ReportType = "share_forked" | "share_withheld" | "share_forged" | "share_rolled_back";

export type ReplicaEvent =
  | { readonly type: "connected" }
  | { readonly type: "disconnected" }
  /** The end of the list as another member knows it. */
  | { readonly type: "told"; readonly from: UserId; readonly version: number; readonly head: Uint8Array }
  /** The server says that there is something newer; 0: the list is to be looked at again, whatever there is. */
  | { readonly type: "hinted"; readonly version: number }
  | {
      readonly type: "fetched";
      readonly operations: readonly ShareOperation[];
      readonly version: number;
      readonly head: Uint8Array;
    }
  /** `unknown`: the server does not know the file, or does not know it for us. */
  | { readonly type: "fetchFailed"; readonly unknown: boolean }
  | { readonly type: "wished"; readonly wish: Wish }
  | { readonly type: "submitted"; readonly operation: ShareOperation }
  /** Somebody else's operation came first. */
  | { readonly type: "conflicted" }
  /** `error` null: the server could not be reached; the wish waits. */
  | { readonly type: "submitFailed"; readonly error: AppError | null };

export type TimedReplicaEvent = ReplicaEvent & { readonly nowMs: number };

export type ReplicaEffect =
  | { readonly type: "fetch"; readonly since: number }
  | { readonly type: "submit"; readonly draft: ShareDraft }
  /** New operations at the end of the list; `list` is the list with them. */
  | { readonly type: "store"; readonly operations: readonly ShareOperation[]; readonly before: ShareList }
  /** The server lacks the operations from this version on. */
  | { readonly type: "restore"; readonly from: number }
  | { readonly type: "settled"; readonly wish: number; readonly error: AppError | null }
  /** Who may be served may have changed. */
  | { readonly type: "changed" }
  | { readonly type: "report"; readonly report: ReportType };

export const startReplica = (self: UserId, list: ShareList, heads: readonly string[]): Replica => ({
  self,
  list,
  heads,
  connected: false,
  confirmed: false,
  fetching: "no",
  askedAt: 0,
  submittedAt: -1,
  conflictAt: -1,
  toldVersion: 0,
  ownerVersion: 0,
  forked: false,
  wishes: [],
  submitting: null,
  reported: new Set(),
  toldBy: null,
});

/**
 *   serve   a member of the newest list that we know, and we may trust our list
 *   later   the answer will be known when the list was fetched
 *   refuse  no member
 */
export type Verdict = "serve" | "later" | "refuse";

/** Who has signed that they have the file; `current`: whether that is all that the server knows. */
export interface Downloads {
  readonly completedBy: ReadonlySet<UserId>;
  readonly current: boolean;
}
export const noDownloads: Downloads = { completedBy: new Set(), current: true };

/** What the owner wants holds on the own device at once, whether or not the server can be reached. */
export const limitsOf = ({ list, wishes }: Replica): Limits => {
  const wanted = wishes.findLast(({ what }) => what.kind === "terms")?.what;
  const { expiresAtMs, downloadLimit } = wanted?.kind === "terms" ? wanted.terms : list.terms;
  const withdrawn = list.withdrawn || wishes.some(({ what }) => what.kind === "withdraw");
  return { withdrawn, expiresAtMs, downloadLimit };
};

/** Whether this profile may serve the file to that person now. `downloads` counts where their number is limited. */
export const verdictOf = (
  replica: Replica,
  userId: UserId,
  nowMs: number,
  downloads: Downloads = noDownloads,
): Verdict => {
  const { list, self, connected, confirmed } = replica;
  if (list.version === 0) return "refuse";
  // The owner needs no proof from anybody: nothing can take the access of whom the file belongs to.
  if (userId === list.ownerId) return "serve";
  const limits = limitsOf(replica);
  const { completedBy, current } = downloads;
  if (closingOf(limits, nowMs, completedBy.size, completedBy.has(userId)) !== null) return "refuse";
  // What we want to take back is taken back here at once, whether or not the server can be reached.
  if (replica.wishes.some(({ what }) => what.kind === "revoke" && what.userIds.includes(userId))) return "refuse";
  const isListed = list.members.has(userId);
  if (self === list.ownerId) {
    // Only the owner revokes, so the owner's own list lacks at most people whom members added.
    if (isListed) return "serve";
    return connected && !confirmed ? "later" : "refuse";
  }
  if (!isMember(list, self)) return "refuse";
  if (replica.forked) return "refuse";
  if (!connected || !confirmed || list.version < replica.ownerVersion) return "later";
  if (limits.downloadLimit !== null && !current) return "later";
  return isListed ? "serve" : "refuse";
};

type Result = readonly [Replica, readonly ReplicaEffect[]];

/** The step function; `crypto` checks what comes from outside. */
export const replicaStep =
  (crypto: LogCrypto): Step<Replica, TimedReplicaEvent, ReplicaEffect> =>
  (state, event) => {
    const [next, effects] = react(state, event, crypto);
    return submitNext(next, event.nowMs, effects);
  };

const react = (state: Replica, event: ReplicaEvent, crypto: LogCrypto): Result => {
  switch (event.type) {
    case "connected":
      return fetchNow({ ...state, connected: true, forked: false, fetching: "no", submitting: null });
    case "disconnected":
      return [
        { ...state, connected: false, confirmed: false, fetching: "no", submitting: null },
        [{ type: "changed" }],
      ];
    case "told":
      return told(state, event);
    case "hinted":
      return hinted(state, event.version);
    case "fetched":
      return fetched(state, event, crypto);
    case "fetchFailed":
      return fetchFailed(state, event.unknown);
    case "wished":
      return [{ ...state, wishes: [...state.wishes, event.wish] }, [{ type: "changed" }]];
    case "submitted":
      return submitted(state, event.operation, crypto);
    case "conflicted":
      return conflicted(state);
    case "submitFailed":
      return submitFailed(state, event.error);
    default:
      return assertNever(event, "share event");
  }
};

const fetchNow = (state: Replica, effects: readonly ReplicaEffect[] = []): Result => {
  if (!state.connected) return [{ ...state, confirmed: false }, effects];
  const next: Replica = { ...state, confirmed: false };
  if (state.fetching !== "no") return [{ ...next, fetching: "again" }, effects];
  return [
    { ...next, fetching: "running", askedAt: state.list.version },
    [...effects, { type: "fetch", since: state.list.version }],
  ];
};

/** That nobody spoke of a newer version leaves the list as good as it was; it is fetched all the same. */
const hinted = (state: Replica, version: number): Result => {
  if (version > state.list.version) return fetchNow(state);
  if (version > 0 || !state.connected) return [state, []];
  const [next, effects] = fetchNow(state);
  return [{ ...next, confirmed: state.confirmed }, effects];
};

const report = (state: Replica, type: ReportType): Result =>
  state.reported.has(type)
    ? [state, []]
    : [{ ...state, reported: new Set([...state.reported, type]) }, [{ type: "report", report: type }]];

const fork = (state: Replica): Result => {
  const [reported, effects] = report({ ...state, forked: true, confirmed: false }, "share_forked");
  return [reported, [...effects, { type: "changed" }]];
};

const told = (state: Replica, event: Extract<ReplicaEvent, { type: "told" }>): Result => {
  const { from, version, head } = event;
  // Whoever was never in the list has no say about it.
  if (!isMember(state.list, from) && state.list.version > 0) return [state, []];
  const known = state.heads[version - 1];
  if (known !== undefined) return known === toHex(head) ? [state, []] : fork(state);
  const ownerVersion = from === state.list.ownerId ? Math.max(state.ownerVersion, version) : state.ownerVersion;
  const next = { ...state, ownerVersion, toldVersion: Math.max(state.toldVersion, version), toldBy: from };
  return fetchNow(next, [{ type: "changed" }]);
};

/** Takes what is new; what does not hold ends it there. */
const fetched = (state: Replica, event: Extract<ReplicaEvent, { type: "fetched" }>, crypto: LogCrypto): Result => {
  if (!state.connected || state.fetching === "no") return [state, []];
  const again = state.fetching === "again";
  let list = state.list;
  const fresh: ShareOperation[] = [];
  for (const operation of event.operations) {
    if (operation.version <= list.version) {
      if (state.heads[operation.version - 1] !== toHex(operationHash(operation, crypto))) return fork(idle(state));
      continue;
    }
    const next = append(list, operation, crypto);
    if (!next.ok) {
      // One that is signed and does not follow ours belongs to another history.
      if (next.error.type === "share_conflict" && operation.version === list.version + 1)
        return withStored(idle(state), list, fresh, fork);
      return withStored(idle(state), list, fresh, (stored) => report(stored, "share_forged"));
    }
    list = next.value;
    fresh.push(operation);
  }
  return withStored(idle(state), list, fresh, (stored) => compared(stored, event, again));
};

const idle = (state: Replica): Replica => ({ ...state, fetching: "no" });

/** The state with what was taken, then what `then` makes of it. */
const withStored = (
  state: Replica,
  list: ShareList,
  fresh: readonly ShareOperation[],
  then: (stored: Replica) => Result,
): Result => {
  if (fresh.length === 0) return then(state);
  const heads = [...state.heads, ...fresh.slice(1).map((operation) => toHex(operation.previousHash)), toHex(list.head)];
  const [next, effects] = then({ ...state, list, heads });
  return [next, [{ type: "store", operations: fresh, before: state.list }, ...effects, { type: "changed" }]];
};

/** Our end of the list against the server's. */
const compared = (state: Replica, { version, head }: { version: number; head: Uint8Array }, again: boolean): Result => {
  const { list } = state;
  // More pages, or something was said meanwhile, or an operation of ours came in between.
  const crossed = version < list.version && version >= state.askedAt && list.version > state.askedAt;
  if (version > list.version || again || crossed) return fetchNow(state);
  const atServer = version === 0 ? null : state.heads[version - 1];
  if (atServer !== null && atServer !== toHex(head)) return fork(state);
  const [confirmed, effects]: Result =
    version < list.version
      ? rolledBack(state, version)
      : state.toldVersion > version
        ? report(state, "share_withheld")
        : [state, []];
  // A version that nobody can show is believed of the owner only, and that is what `ownerVersion` keeps.
  const next = { ...confirmed, confirmed: true, toldVersion: Math.min(confirmed.toldVersion, list.version) };
  return [next, [...effects, { type: "changed" }]];
};

const rolledBack = (state: Replica, version: number): Result => {
  const restore: ReplicaEffect = { type: "restore", from: version + 1 };
  // A list that the server never had is the owner's own, which is being registered.
  if (version === 0) return [state, [restore]];
  const [next, effects] = report(state, "share_rolled_back");
  return [next, [restore, ...effects]];
};

const fetchFailed = (state: Replica, unknown: boolean): Result => {
  if (state.fetching === "no") return [state, []];
  const again = state.fetching === "again";
  const next = idle(state);
  if (again) return fetchNow(next);
  // The owner's file is registered by whoever keeps the files; for others an unknown file stays unconfirmed.
  return unknown && state.self === state.list.ownerId ? [next, [{ type: "restore", from: 1 }]] : [next, []];
};

/** The oldest wish that still changes something; those that are true already, or cannot be any more, are settled. */
const submitNext = (state: Replica, nowMs: number, effects: readonly ReplicaEffect[]): Result => {
  if (state.submitting !== null || !state.connected || state.fetching !== "no" || !state.confirmed)
    return [state, effects];
  const [wish, ...rest] = state.wishes;
  if (wish === undefined) return [state, effects];
  const draft = draftFor(state.list, wish.what, state.self, nowMs);
  if (draft.ok) {
    const next = { ...state, submitting: wish, submittedAt: state.list.version };
    return [next, [...effects, { type: "submit", draft: draft.value }]];
  }
  const error = draft.error.type === "share_no_change" ? null : draft.error;
  const settled: ReplicaEffect = { type: "settled", wish: wish.id, error };
  return submitNext({ ...state, wishes: rest }, nowMs, [...effects, settled, { type: "changed" }]);
};

const submitted = (state: Replica, operation: ShareOperation, crypto: LogCrypto): Result => {
  const wish = state.submitting;
  if (wish === null) return [state, []];
  const done: Replica = { ...state, submitting: null, wishes: state.wishes.filter(({ id }) => id !== wish.id) };
  const settled: ReplicaEffect = { type: "settled", wish: wish.id, error: null };
  const next = append(done.list, operation, crypto);
  // A fetch that ran meanwhile has brought it already.
  if (!next.ok) return [done, [settled, { type: "changed" }]];
  return withStored(done, next.value, [operation], (stored) => [stored, [settled]]);
};

/** The wish stays, and is made anew for the list that the fetch brings; unless the server keeps what is newer to itself. */
const conflicted = (state: Replica): Result => {
  const wish = state.submitting;
  if (wish === null || state.conflictAt < state.submittedAt)
    return fetchNow({ ...state, submitting: null, conflictAt: state.submittedAt });
  const [next, effects] = report(state, "share_withheld");
  const error = { type: "share_withheld", message: "The server refuses changes and does not show the newest list." };
  const [failed, more] = submitFailed(next, error);
  return [failed, [...effects, ...more]];
};

const submitFailed = (state: Replica, error: AppError | null): Result => {
  const wish = state.submitting;
  if (wish === null) return [state, []];
  // Not reached: it waits, and the next fetch shows whether it arrived after all.
  if (error === null) return [{ ...state, submitting: null, confirmed: false }, []];
  const wishes = state.wishes.filter(({ id }) => id !== wish.id);
  return [{ ...state, submitting: null, wishes }, [{ type: "settled", wish: wish.id, error }, { type: "changed" }]];
};
