import { assertNever } from "#shared/base/assert.ts";
import type { TimeMs } from "#shared/base/env.ts";
import { ACTIVITY_SAMPLES_MAX, ACTIVITY_SPAN_MAX_MS, ACTIVITY_STEPS_MAX } from "#shared/base/limits.ts";
import type { PathKind } from "#shared/ipc/views.ts";
import type { AggregateRow } from "../store/activity-sums.ts";
import type { ActivityEvent } from "./events.ts";

/**
 * Events to sessions, sessions to sums: one pass, without time, randomness or I/O, so that a replay of the same events
 * from the same state gives the same result.
 */
export const DAY_MS = 86_400_000;
const HOUR_MS = 3_600_000;
const MINUTE_MS = 60_000;
/** Upper bounds of the classes of drain times, in ms; the last class has none. */
export const DRAIN_CLASSES = [0, 1, 10, 50, 100, 250, 500, 1000, 2500, 5000, 10_000] as const;

export interface LinkData {
  readonly path: PathKind | null;
  /** Since when it goes that way. */
  readonly since: TimeMs;
  readonly pathChanges: number;
}

export interface TransferData {
  readonly sizeBytes: number;
  readonly bytes: number;
  /** Bytes and chunks by seeder and path. */
  readonly shares: Readonly<Record<string, { bytes: number; chunks: number }>>;
  /** What happened, with how long the step before it took; the newest ACTIVITY_STEPS_MAX. */
  readonly steps: readonly { at: TimeMs; what: string; ms: number | null }[];
  /** End, milliseconds and bytes of stretches of the download. */
  readonly samples: readonly (readonly [at: TimeMs, ms: number, bytes: number])[];
  readonly drain: { ms: number; endedBy: string } | null;
  readonly counters: { requested: number; duplicate: number; late: number; rejected: number } | null;
  readonly outcome: "completed" | "failed" | "cancelled" | null;
  /** The outcome is written with the download's row; what was measured until then may come after it. */
  readonly outcomeAt: TimeMs | null;
  readonly error: string | null;
}

/** A span of time with a beginning and an end. */
export type Session = {
  readonly id: number;
  readonly slot: string;
  readonly peer: string | null;
  readonly fileId: string | null;
  readonly startedAt: TimeMs;
  readonly endedAt: TimeMs | null;
} & (
  | { readonly kind: "app" | "presence"; readonly data: null }
  | { readonly kind: "link"; readonly data: LinkData }
  | { readonly kind: "transfer"; readonly data: TransferData }
);

type SessionOf<Kind extends Session["kind"]> = Extract<Session, { kind: Kind }>;

export const transferSlot = (fileId: string): string => `transfer ${fileId}`;

const emptyTransfer: TransferData = {
  sizeBytes: 0,
  bytes: 0,
  shares: {},
  steps: [],
  samples: [],
  drain: null,
  counters: null,
  outcome: null,
  outcomeAt: null,
  error: null,
};

export class ActivityFold {
  /** The newest time seen: where everything ended when the program did not say so. */
  lastAt: TimeMs;
  readonly #open = new Map<string, Session>();
  #sums = new Map<string, AggregateRow>();
  #changed = new Map<string, Session>();

  constructor(lastAt: TimeMs, open: Iterable<Session>) {
    this.lastAt = lastAt;
    for (const session of open) this.#open.set(session.slot, session);
  }

  get openSessions(): Iterable<Session> {
    return this.#open.values();
  }

  /** Distinct sums since the last `take`. */
  get pending(): number {
    return this.#sums.size;
  }

  /** What changed since the last call. Sessions come with their last state, those that ended as well. */
  take(): { sums: Iterable<AggregateRow>; sessions: Iterable<Session> } {
    const taken = { sums: this.#sums.values(), sessions: this.#changed.values() };
    this.#sums = new Map();
    this.#changed = new Map();
    return taken;
  }

  apply(event: ActivityEvent): void {
    const { peer } = event;
    switch (event.kind) {
      case "app.started":
        // A crash says no goodbye: what was open ended with the last thing that happened.
        this.#endAll(event, Math.min(this.lastAt, event.at));
        this.#begin(event, { slot: "app", kind: "app", data: null });
        break;
      case "app.stopped":
        this.#endAll(event, event.at);
        break;
      case "message.queued":
        break;
      case "message.sent":
      case "message.received":
      case "message.delivered":
      case "message.read":
      case "message.failed":
        this.#count(event, messageMetrics[event.kind], 1);
        break;
      case "link.up":
        this.#linkUp(event, event.data.path);
        break;
      case "link.path":
        this.#linkPath(event, event.data.path);
        break;
      case "link.down":
        if (peer !== null && this.#endLink(event, `link ${peer}`, event.at)) this.#count(event, "linkDowns", 1);
        break;
      case "link.failed":
        this.#count(event, "linkFailures", 1);
        break;
      case "contact.online":
        if (peer !== null && !this.#open.has(`presence ${peer}`))
          this.#begin(event, { slot: `presence ${peer}`, kind: "presence", data: null });
        break;
      case "contact.offline":
        if (peer !== null) this.#endPresence(event, `presence ${peer}`, event.at);
        break;
      case "transfer.served":
        this.#count(event, "bytesSent", event.data.bytes);
        this.#add(event, "file", event.fileId ?? "", "bytesSent", event.data.bytes);
        this.#add(event, "path", event.data.path, "bytesSent", event.data.bytes);
        this.#add(event, "contactFile", `${peer} ${event.fileId}`, "bytesSent", event.data.bytes);
        this.#add(event, "contactPath", `${peer} ${event.data.path}`, "bytesSent", event.data.bytes);
        break;
      case "share.changed":
        this.#add(event, "total", "", "shareChanges", 1);
        break;
      case "error":
        this.#add(event, "total", "", "errors", 1);
        break;
      case "transfer.started":
      case "transfer.paused":
      case "transfer.resumed":
      case "transfer.cancelled":
      case "transfer.removed":
      case "transfer.failed":
      case "transfer.completed":
      case "transfer.progress":
      case "transfer.phase":
      case "transfer.drained":
        this.#transfer(event);
        break;
      default:
        assertNever(event, "event of the activity log");
    }
    this.lastAt = Math.max(this.lastAt, event.at);
  }

  // ---- Sums ---------------------------------------------------------------------------------------------------------

  #add(event: ActivityEvent, scope: string, key: string, metric: string, value: number, atMs = event.at): void {
    this.#sum(scope, key, dayOf(atMs, event.offsetMin), metric, value);
  }

  #sum(scope: string, key: string, day: number, metric: string, value: number): void {
    if (value === 0) return;
    const id = `${scope}\t${key}\t${day}\t${metric}`;
    const before = this.#sums.get(id);
    this.#sums.set(
      id,
      before === undefined ? { scope, key, day, metric, value } : { ...before, value: before.value + value },
    );
  }

  /** In the totals, and for the person whom it is about. */
  #count(event: ActivityEvent, metric: string, value: number, peer = event.peer): void {
    this.#add(event, "total", "", metric, value);
    if (peer !== null) this.#add(event, "contact", peer, metric, value);
  }

  /** Spreads a span over the local days that it covers; `hours` also over the hours of the day, a week at a time. */
  #span(
    event: ActivityEvent,
    span: { scope: string; key: string; metric: string; hours?: string },
    from: TimeMs,
    to: TimeMs,
  ): void {
    const offsetMs = event.offsetMin * MINUTE_MS;
    // A clock that was set wrong must not make a year of it.
    let at = Math.max(from, to - ACTIVITY_SPAN_MAX_MS) + offsetMs;
    const end = to + offsetMs;
    while (at < end) {
      const next = Math.min(end, Math.floor(at / HOUR_MS) * HOUR_MS + HOUR_MS);
      const day = Math.floor(at / DAY_MS);
      this.#sum(span.scope, span.key, day, span.metric, next - at);
      if (span.hours !== undefined)
        this.#sum("hour", span.hours, day - (day % 7), `h${Math.floor((at % DAY_MS) / HOUR_MS)}`, next - at);
      at = next;
    }
  }

  // ---- Sessions -----------------------------------------------------------------------------------------------------

  #put(session: Session): void {
    this.#changed.set(`${session.slot} ${session.id}`, session);
    if (session.endedAt === null) this.#open.set(session.slot, session);
    else this.#open.delete(session.slot);
  }

  #begin(
    event: ActivityEvent,
    begun: { slot: string } & ({ kind: "app" | "presence"; data: null } | { kind: "link"; data: LinkData }),
  ): void {
    const { seq, peer, at } = event;
    this.#put({ id: seq, peer, fileId: null, startedAt: at, endedAt: null, ...begun });
  }

  #endAll(event: ActivityEvent, atMs: TimeMs): void {
    for (const session of [...this.#open.values()]) {
      if (session.kind === "link") this.#endLink(event, session.slot, atMs);
      else if (session.kind === "presence") this.#endPresence(event, session.slot, atMs);
      else if (session.kind === "app") {
        this.#span(event, { scope: "total", key: "", metric: "appMs", hours: "" }, session.startedAt, atMs);
        this.#put({ ...session, endedAt: Math.max(session.startedAt, atMs) });
      } else if (session.kind === "transfer" && session.data.outcomeAt !== null)
        this.#put({ ...session, endedAt: session.data.outcomeAt });
    }
  }

  #linkUp(event: ActivityEvent, path: PathKind | null): void {
    if (event.peer === null) return;
    const slot = `link ${event.peer}`;
    if (this.#open.has(slot)) {
      this.#linkPath(event, path);
      return;
    }
    this.#begin(event, { slot, kind: "link", data: { path, since: event.at, pathChanges: 0 } });
    this.#count(event, "linkUps", 1);
  }

  #linkPath(event: ActivityEvent, path: PathKind | null): void {
    const session = this.#open.get(`link ${event.peer}`);
    if (session?.kind !== "link" || session.data.path === path) return;
    this.#linkTime(event, session, event.at);
    const pathChanges = session.data.pathChanges + (session.data.path === null ? 0 : 1);
    this.#put({ ...session, data: { path, since: event.at, pathChanges } });
    this.#count(event, "pathChanges", pathChanges - session.data.pathChanges);
  }

  #endLink(event: ActivityEvent, slot: string, atMs: TimeMs): boolean {
    const session = this.#open.get(slot);
    if (session?.kind !== "link") return false;
    this.#linkTime(event, session, atMs);
    this.#put({ ...session, endedAt: Math.max(session.startedAt, atMs) });
    return true;
  }

  #linkTime(event: ActivityEvent, { peer, data }: SessionOf<"link">, atMs: TimeMs): void {
    this.#span(event, { scope: "contact", key: peer ?? "", metric: "linkMs" }, data.since, atMs);
    const path = data.path ?? "unknown";
    this.#span(event, { scope: "path", key: path, metric: "linkMs" }, data.since, atMs);
    this.#span(event, { scope: "contactPath", key: `${peer} ${path}`, metric: "linkMs" }, data.since, atMs);
  }

  #endPresence(event: ActivityEvent, slot: string, atMs: TimeMs): void {
    const session = this.#open.get(slot);
    if (session?.kind !== "presence") return;
    const key = session.peer ?? "";
    this.#span(event, { scope: "contact", key, metric: "onlineMs", hours: key }, session.startedAt, atMs);
    this.#put({ ...session, endedAt: Math.max(session.startedAt, atMs) });
  }

  // ---- Downloads ----------------------------------------------------------------------------------------------------

  #transfer(event: Extract<ActivityEvent, { kind: `transfer.${string}` }>): void {
    const { fileId } = event;
    if (fileId === null || event.kind === "transfer.served") return;
    const found = this.#open.get(transferSlot(fileId));
    let open = found?.kind === "transfer" ? found : null;
    if (event.kind === "transfer.removed") {
      if (open !== null) this.#put({ ...open, endedAt: open.data.outcomeAt ?? event.at });
      return;
    }
    if (open !== null && open.data.outcomeAt !== null && BEGINNINGS.has(event.kind)) {
      this.#put({ ...open, endedAt: open.data.outcomeAt });
      open = null;
    }
    const session: SessionOf<"transfer"> =
      open !== null
        ? open
        : {
            id: event.seq,
            slot: transferSlot(fileId),
            peer: event.peer,
            fileId,
            startedAt: event.at,
            endedAt: null,
            kind: "transfer",
            data: emptyTransfer,
          };
    this.#put(this.#transferStep(event, session));
  }

  #transferStep(
    event: Exclude<
      Extract<ActivityEvent, { kind: `transfer.${string}` }>,
      { kind: "transfer.served" | "transfer.removed" }
    >,
    session: SessionOf<"transfer">,
  ): SessionOf<"transfer"> {
    const { data } = session;
    const { at } = event;
    const step = (what: string, ms: number | null = null): TransferData["steps"] =>
      [...data.steps, { at, what, ms }].slice(-ACTIVITY_STEPS_MAX);
    const end = (outcome: TransferData["outcome"], more: Partial<TransferData> = {}): SessionOf<"transfer"> => ({
      ...session,
      endedAt: LAST_PHASES.has(data.steps.at(-1)?.what ?? "") ? at : null,
      data: { ...data, outcome, outcomeAt: at, ...more },
    });
    switch (event.kind) {
      case "transfer.started":
        this.#count(event, "transfersStarted", 1);
        return { ...session, data: { ...data, steps: step("started") } };
      case "transfer.paused":
      case "transfer.resumed":
        return { ...session, data: { ...data, steps: step(event.kind === "transfer.paused" ? "paused" : "resumed") } };
      case "transfer.phase": {
        const endedAt = LAST_PHASES.has(event.data.phase) ? data.outcomeAt : null;
        return { ...session, endedAt, data: { ...data, steps: step(event.data.phase, event.data.ms) } };
      }
      case "transfer.progress":
        return { ...session, data: this.#progress(event, data) };
      case "transfer.drained": {
        const { ms, endedBy } = event.data;
        const upTo = DRAIN_CLASSES.findIndex((bound) => ms <= bound);
        this.#add(event, "drain", endedBy, `c${upTo === -1 ? DRAIN_CLASSES.length : upTo}`, 1);
        this.#add(event, "total", "", "drains", 1);
        this.#add(event, "total", "", "drainMs", ms);
        return { ...session, data: { ...data, drain: { ms, endedBy } } };
      }
      case "transfer.completed": {
        this.#count(event, "transfersCompleted", 1);
        for (const [name, value] of Object.entries(event.data)) this.#add(event, "total", "", `${name}Chunks`, value);
        return end("completed", { counters: event.data });
      }
      case "transfer.failed":
        this.#count(event, "transfersFailed", 1);
        return end("failed", { error: event.data.type });
      case "transfer.cancelled":
        this.#count(event, "transfersCancelled", 1);
        return end("cancelled");
      default:
        return assertNever(event, "event of a download");
    }
  }

  #progress(event: Extract<ActivityEvent, { kind: "transfer.progress" }>, data: TransferData): TransferData {
    const { bytes, ms, sizeBytes, shares } = event.data;
    this.#add(event, "total", "", "bytesReceived", bytes);
    this.#add(event, "file", event.fileId ?? "", "bytesReceived", bytes);
    const merged: Record<string, { bytes: number; chunks: number }> = { ...data.shares };
    for (const share of shares) {
      this.#add(event, "contact", share.peer, "bytesReceived", share.bytes);
      this.#add(event, "path", share.path, "bytesReceived", share.bytes);
      this.#add(event, "contactFile", `${share.peer} ${event.fileId}`, "bytesReceived", share.bytes);
      this.#add(event, "contactPath", `${share.peer} ${share.path}`, "bytesReceived", share.bytes);
      const key = `${share.peer} ${share.path}`;
      const before = merged[key] ?? { bytes: 0, chunks: 0 };
      merged[key] = { bytes: before.bytes + share.bytes, chunks: before.chunks + share.chunks };
    }
    const samples = thinned([...data.samples, [event.at, ms, bytes] as const]);
    return { ...data, sizeBytes, bytes: data.bytes + bytes, shares: merged, samples };
  }
}

const LAST_PHASES: ReadonlySet<string> = new Set(["complete", "failed"]);
/** They begin a new run of a download that had ended. */
const BEGINNINGS: ReadonlySet<string> = new Set(["transfer.started", "transfer.resumed"]);

const messageMetrics = {
  "message.sent": "messagesSent",
  "message.received": "messagesReceived",
  "message.delivered": "messagesDelivered",
  "message.read": "messagesRead",
  "message.failed": "messagesFailed",
} as const;

export const dayOf = (atMs: TimeMs, offsetMin: number): number => Math.floor((atMs + offsetMin * MINUTE_MS) / DAY_MS);

/** Joins neighbours in pairs when there are too many: the sums stay, the picture gets coarser. */
const thinned = (samples: TransferData["samples"]): TransferData["samples"] => {
  if (samples.length <= ACTIVITY_SAMPLES_MAX) return samples;
  const joined: (readonly [number, number, number])[] = [];
  for (let i = 0; i < samples.length; i += 2) {
    const [first, second] = [samples[i], samples[i + 1]];
    if (first === undefined) break;
    joined.push(second === undefined ? first : [second[0], first[1] + second[1], first[2] + second[2]]);
  }
  return joined;
};
