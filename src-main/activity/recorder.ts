import { type Disposable, DisposableStore } from "#shared/base/disposable.ts";
import type { Event } from "#shared/base/emitter.ts";
import type { Env } from "#shared/base/env.ts";
import { ACTIVITY_GATHER_EVENTS, ACTIVITY_GATHER_MS, ACTIVITY_UNWRITTEN_MAX } from "#shared/base/limits.ts";
import { messageOf } from "#shared/base/result.ts";
import type { ContactView, FileView, LinkView, NoticeView, PathKind, TransferView } from "#shared/ipc/views.ts";
import type { ActivityLogTable, NewEvent } from "../store/activity.ts";
import type { Database } from "../store/database.ts";
import type { EventData, EventKind } from "./events.ts";
import { intervalMs, TransferFollower } from "./progress.ts";

export interface RecorderSources {
  readonly links: { list(): LinkView[]; readonly onChanged: Event<LinkView> };
  readonly contacts: {
    list(): ContactView[];
    readonly onChanged: Event<ContactView | { userId: string; removed: true }>;
  };
  readonly transfers: {
    list(): TransferView[];
    readonly onChanged: Event<TransferView>;
    /** Frames of our files that were handed to a link. */
    readonly onServed: Event<{ peer: string; fileId: string; bytes: number }>;
  };
  readonly files: {
    list(): FileView[];
    readonly onChanged: Event<FileView>;
    ownerOf(fileId: string): string | null;
  };
  readonly notices: readonly Event<NoticeView>[];
}

export interface RecorderDeps {
  /** There is no history yet: what was downloaded before it begins is no part of it. */
  readonly isFirst: boolean;
  readonly env: Env;
  readonly db: Database;
  readonly log: ActivityLogTable;
  readonly sources: RecorderSources;
}

interface Served {
  readonly peer: string;
  readonly fileId: string;
  readonly path: PathKind;
  readonly firstMs: number;
  loggedMs: number;
  bytes: number;
  chunks: number;
}

/**
 * Writes down what has no row of its own: links, presence, phases and progress of downloads, what was served. These events
 * gather for a moment and are written together; what a crash takes of a download's progress comes with its next event,
 * because the mark of what is logged is written with the event.
 */
export class ActivityRecorder implements Disposable {
  readonly #deps: RecorderDeps;
  readonly #owned = new DisposableStore();
  readonly #transfers = new Map<string, TransferFollower>();
  readonly #served = new Map<string, Served>();
  readonly #links = new Map<string, { state: LinkView["state"]; path: LinkView["path"] }>();
  readonly #online = new Set<string>();
  readonly #versions = new Map<string, string>();
  #waiting: NewEvent[] = [];
  #timer: Disposable | null = null;
  #dropped = 0;

  constructor(deps: RecorderDeps) {
    this.#deps = deps;
    const { links, contacts, transfers, files, notices } = deps.sources;
    this.#say("app.started", null);
    for (const view of files.list()) this.#versions.set(view.fileId, versionOf(view));
    for (const view of transfers.list()) {
      if (deps.isFirst) deps.log.saveMark(view.fileId, { runBytes: view.bytesStored, totalBytes: 0 });
      this.#follow(view, true);
    }
    for (const view of links.list()) this.#onLink(view);
    for (const view of contacts.list()) this.#onContact(view);
    this.#owned.add(links.onChanged((view) => this.#onLink(view)));
    this.#owned.add(contacts.onChanged((view) => this.#onContact(view)));
    this.#owned.add(transfers.onChanged((view) => this.#onTransfer(view)));
    this.#owned.add(transfers.onServed((served) => this.#onServed(served)));
    this.#owned.add(files.onChanged((view) => this.#onFile(view)));
    for (const event of notices)
      this.#owned.add(event(({ level, type }) => level === "error" && this.#say("error", { type: type.slice(0, 64) })));
    this.flush();
  }

  /** Events that were given up because nothing could be written for so long. */
  get dropped(): number {
    return this.#dropped;
  }

  /** Writes what has gathered; false when it could not be written and waits. `all`: also progress that is not due yet. */
  flush({ all = false } = {}): boolean {
    const { db, env, log } = this.#deps;
    this.#timer?.dispose();
    this.#timer = null;
    const times = { now: env.clock.now(), monotonicMs: env.clock.monotonicMs() };
    const followers = [...this.#transfers.values()].filter((each) => all || each.isDue(times.monotonicMs));
    const served = [...this.#served.values()].filter(
      ({ firstMs, loggedMs, bytes }) =>
        bytes > 0 && (all || times.monotonicMs >= loggedMs + intervalMs(times.monotonicMs - firstMs)),
    );
    if (this.#waiting.length + followers.length + served.length === 0) return true;
    try {
      db.repeatableTransaction(() => {
        for (const follower of followers) {
          const progress = follower.progress(log.mark(follower.fileId), times);
          if (progress === null) continue;
          if (progress.event !== null) log.append(progress.event);
          log.saveMark(follower.fileId, progress.mark);
        }
        for (const { peer, fileId, path, bytes, chunks } of served)
          log.append(eventOf("transfer.served", times.now, { bytes, chunks, path }, { peer, fileId }));
        for (const event of this.#waiting) log.append(event);
      });
    } catch (error) {
      env.log.warn("the activity log could not be written", { error: messageOf(error) });
      const surplus = this.#waiting.length - ACTIVITY_UNWRITTEN_MAX;
      if (surplus > 0) {
        this.#waiting = this.#waiting.slice(surplus);
        this.#dropped += surplus;
      }
      this.#later();
      return false;
    }
    this.#waiting = [];
    for (const each of served) {
      each.bytes = 0;
      each.chunks = 0;
      each.loggedMs = times.monotonicMs;
    }
    for (const [fileId, follower] of this.#transfers) if (follower.isOver) this.#forgetLater(fileId, follower);
    this.#later();
    return true;
  }

  /** The history was deleted: what is the case now is the beginning of the new one. */
  restart(): void {
    this.#waiting = [];
    this.#say("app.started", null);
    for (const [peer, { state, path }] of this.#links)
      if (state === "connected") this.#say("link.up", { path, generation: 0 }, { peer });
    for (const peer of this.#online) this.#say("contact.online", null, { peer });
    this.flush();
  }

  dispose(): void {
    this.#say("app.stopped", null);
    this.flush({ all: true });
    this.#owned.dispose();
    this.#timer?.dispose();
    this.#timer = null;
  }

  #say<Kind extends EventKind>(
    kind: Kind,
    data: EventData<Kind>,
    about: { peer?: string; fileId?: string } = {},
  ): void {
    this.#waiting.push(eventOf(kind, this.#deps.env.clock.now(), data, about));
    this.#later();
  }

  #later(): void {
    if (this.#owned.disposed) return;
    if (this.#waiting.length === ACTIVITY_GATHER_EVENTS) queueMicrotask(() => this.flush());
    const isNeeded =
      this.#waiting.length > 0 ||
      [...this.#transfers.values()].some((follower) => follower.hasProgress) ||
      [...this.#served.values()].some(({ bytes }) => bytes > 0);
    if (isNeeded) this.#timer ??= this.#deps.env.clock.setTimer(ACTIVITY_GATHER_MS, () => this.flush());
  }

  #onLink({ peerId, state, path, generation, reason }: LinkView): void {
    const before = this.#links.get(peerId);
    this.#links.set(peerId, { state, path });
    const wasUp = before?.state === "connected";
    const peer = { peer: peerId };
    if (state === "connected") {
      if (!wasUp) this.#say("link.up", { path, generation }, peer);
      else if (before.path !== path) this.#say("link.path", { path }, peer);
    } else if (wasUp) this.#say("link.down", { reason: wordOf(reason) }, peer);
    else if (state === "failed" && before?.state !== "failed")
      this.#say("link.failed", { reason: wordOf(reason) }, peer);
  }

  #onContact(view: ContactView | { userId: string; removed: true }): void {
    const isOnline = "online" in view && view.online;
    if (isOnline === this.#online.has(view.userId)) return;
    if (isOnline) this.#online.add(view.userId);
    else this.#online.delete(view.userId);
    this.#say(isOnline ? "contact.online" : "contact.offline", null, { peer: view.userId });
  }

  #onFile(view: FileView): void {
    const version = versionOf(view);
    if (this.#versions.get(view.fileId) === version) return;
    this.#versions.set(view.fileId, version);
    const data = { version: view.version, members: view.sharedWith.length };
    this.#say("share.changed", data, { fileId: view.fileId });
  }

  #onServed({ peer, fileId, bytes }: { peer: string; fileId: string; bytes: number }): void {
    const path = this.#links.get(peer)?.path ?? "direct";
    const key = `${peer} ${fileId} ${path}`;
    const nowMs = this.#deps.env.clock.monotonicMs();
    const entry = this.#served.get(key) ?? { peer, fileId, path, firstMs: nowMs, loggedMs: nowMs, bytes: 0, chunks: 0 };
    entry.bytes += bytes;
    entry.chunks += 1;
    this.#served.set(key, entry);
    this.#later();
  }

  // ---- Downloads ----------------------------------------------------------------------------------------------------

  #follow(view: TransferView, isRestored: boolean): TransferFollower {
    const { sources, env } = this.#deps;
    const ownerId = sources.files.ownerOf(view.fileId);
    const follower = new TransferFollower(view, ownerId, env.clock.monotonicMs(), isRestored);
    this.#transfers.set(view.fileId, follower);
    return follower;
  }

  #onTransfer(view: TransferView): void {
    const { env } = this.#deps;
    const known = this.#transfers.get(view.fileId);
    if (known?.goesBack(view) === true) this.flush({ all: true });
    const follower = known ?? this.#follow(view, false);
    const times = { now: env.clock.now(), monotonicMs: env.clock.monotonicMs() };
    if (known !== undefined) this.#waiting.push(...follower.see(view, times));
    // What it ended with, before its row can go.
    if (follower.isOver) this.flush();
    else this.#later();
  }

  /** Its last state is written; it is met again as a new one if it goes on. */
  #forgetLater(fileId: string, follower: TransferFollower): void {
    if (this.#transfers.get(fileId) === follower && !follower.isDue(this.#deps.env.clock.monotonicMs()))
      this.#transfers.delete(fileId);
  }
}

const eventOf = <Kind extends EventKind>(
  kind: Kind,
  at: number,
  data: EventData<Kind>,
  { peer = null, fileId = null }: { peer?: string | null; fileId?: string | null },
): NewEvent => ({ at, kind, peer, fileId, data: data === null ? null : JSON.stringify(data) });

/** Reasons are stable words of ours; anything else, which could hold an address, stays out. */
const wordOf = (reason: string | null): string | null =>
  reason !== null && /^[a-zA-Z_]{1,64}$/.test(reason) ? reason : null;

const versionOf = ({ version, sharedWith }: FileView): string => `${version} ${sharedWith.length}`;
