import type { TimeMs } from "#shared/base/env.ts";
import { ACTIVITY_PROGRESS_MAX_MS, ACTIVITY_PROGRESS_MIN_MS } from "#shared/base/limits.ts";
import type { PathKind, TransferView } from "#shared/ipc/views.ts";
import type { ActivityMark, NewEvent } from "../store/activity.ts";
import type { EventData } from "./events.ts";

/** The start of one and the same drain is read from two clocks each time, so it moves by a little. */
const CLOCK_JITTER_MS = 100;

interface Times {
  readonly now: TimeMs;
  readonly monotonicMs: number;
}

/** The longer something goes on, the further apart its entries: a long one does not fill the log. */
export const intervalMs = (ageMs: number): number =>
  Math.min(ACTIVITY_PROGRESS_MAX_MS, Math.max(ACTIVITY_PROGRESS_MIN_MS, ageMs / 100));

/** Follows one download and tells what is to be logged of it. */
export class TransferFollower {
  readonly fileId: string;
  readonly #ownerId: string | null;
  readonly #firstMs: number;
  #view: TransferView;
  #phaseSinceMs: number | null;
  #progressMs: number;
  #hasProgress = false;
  #drainTold: number | null;
  /** Newest counts of each seeder, also of those that have left, and how much of them is logged. */
  readonly #seeders = new Map<string, { chunks: number; logged: number; path: PathKind }>();

  constructor(view: TransferView, ownerId: string | null, monotonicMs: number, isRestored: boolean) {
    this.fileId = view.fileId;
    this.#ownerId = ownerId;
    this.#firstMs = monotonicMs;
    this.#progressMs = monotonicMs;
    this.#view = view;
    this.#phaseSinceMs = isRestored ? null : monotonicMs;
    this.#drainTold = view.drain?.endedBy === null ? null : (view.drain?.startedAtMs ?? null);
    this.#noteProgress(view);
  }

  get isOver(): boolean {
    return this.#view.phase === "complete" || this.#view.phase === "failed";
  }

  /** There may be bytes that are not logged yet. */
  get hasProgress(): boolean {
    return this.#hasProgress;
  }

  /** Whether what was seen before must be logged before the next view, which goes back behind it. */
  goesBack(view: TransferView): boolean {
    return view.bytesStored < this.#view.bytesStored;
  }

  see(view: TransferView, { now, monotonicMs }: Times): NewEvent[] {
    const before = this.#view;
    const events: NewEvent[] = [];
    const isCancelled = view.error?.type === "cancelled";
    const { drain } = view;
    if (
      drain !== null &&
      drain.endedBy !== null &&
      Math.abs(drain.startedAtMs - (this.#drainTold ?? 0)) > CLOCK_JITTER_MS
    ) {
      this.#drainTold = drain.startedAtMs;
      const data = { ms: Math.max(0, Math.round(now - drain.startedAtMs)), endedBy: drain.endedBy };
      events.push(this.#event("transfer.drained", now, data));
    }
    if (view.phase !== before.phase) {
      const ms = this.#phaseSinceMs === null ? null : Math.round(monotonicMs - this.#phaseSinceMs);
      this.#phaseSinceMs = monotonicMs;
      events.push(this.#event("transfer.phase", now, { phase: view.phase, from: before.phase, ms }));
    }
    // A cancelled one has nothing any more, and that is not progress.
    if (!isCancelled) this.#noteProgress(view);
    this.#view = isCancelled ? { ...view, bytesStored: before.bytesStored } : view;
    return events;
  }

  #noteProgress(view: TransferView): void {
    for (const { userId, chunks, path } of view.seeders)
      this.#seeders.set(userId, { logged: 0, ...this.#seeders.get(userId), chunks, path });
    this.#hasProgress = true;
  }

  isDue(monotonicMs: number): boolean {
    const dueAtMs = this.#progressMs + intervalMs(monotonicMs - this.#firstMs);
    return this.#hasProgress && (this.isOver || monotonicMs >= dueAtMs);
  }

  /** What arrived since `mark`; the new mark must be written with the event. */
  progress(mark: ActivityMark, { now, monotonicMs }: Times): { event: NewEvent | null; mark: ActivityMark } | null {
    this.#hasProgress = false;
    const view = this.#view;
    const bytes = view.bytesStored - mark.runBytes;
    if (bytes === 0) return null;
    if (bytes < 0) {
      // Damaged chunks were thrown away. Before the disk was scanned the number may be an old one.
      const isScanned = view.inFlight > 0 || view.seeders.length > 0;
      return isScanned ? { event: null, mark: { ...mark, runBytes: view.bytesStored } } : null;
    }
    const data = {
      bytes,
      ms: Math.max(0, Math.round(monotonicMs - this.#progressMs)),
      sizeBytes: view.sizeBytes,
      shares: this.#shares(bytes),
    };
    this.#progressMs = monotonicMs;
    return {
      event: this.#event("transfer.progress", now, data),
      mark: { runBytes: view.bytesStored, totalBytes: mark.totalBytes + bytes },
    };
  }

  /** The bytes, divided as the chunks are; what nobody is known to have sent came from the owner. */
  #shares(bytes: number): EventData<"transfer.progress">["shares"] {
    const parts = [...this.#seeders].map(([peer, seeder]) => ({ peer, seeder, chunks: seeder.chunks - seeder.logged }));
    const given = parts.filter(({ chunks }) => chunks > 0);
    const all = given.reduce((sum, { chunks }) => sum + chunks, 0);
    if (all === 0) {
      const path = [...this.#seeders.values()][0]?.path ?? "direct";
      return this.#ownerId === null ? [] : [{ peer: this.#ownerId, path, bytes, chunks: 0 }];
    }
    let left = bytes;
    return given.map(({ peer, seeder, chunks }, index) => {
      seeder.logged = seeder.chunks;
      const part = index === given.length - 1 ? left : Math.min(left, Math.round((bytes * chunks) / all));
      left -= part;
      return { peer, path: seeder.path, bytes: part, chunks };
    });
  }

  #event<Kind extends "transfer.drained" | "transfer.phase" | "transfer.progress">(
    kind: Kind,
    at: TimeMs,
    data: EventData<Kind>,
  ): NewEvent {
    return { at, kind, peer: this.#ownerId, fileId: this.fileId, data: JSON.stringify(data) };
  }
}
