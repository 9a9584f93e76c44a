import { stat } from "node:fs/promises";
import { resolve } from "node:path";
import * as v from "valibot";
import { type Disposable, DisposableStore } from "#shared/base/disposable.ts";
import { Emitter, type Event } from "#shared/base/emitter.ts";
import type { Env } from "#shared/base/env.ts";
import { type FileId, type Generation, type UserId, UserIdSchema } from "#shared/base/ids.ts";
import { PROGRESS_INTERVAL_MS, TRANSFER_WEIGHTS } from "#shared/base/limits.ts";
import { err, fail, messageOf, ok, type Result } from "#shared/base/result.ts";
import type {
  ChunkUsageView,
  ErrorView,
  LinkView,
  NoticeView,
  PathKind,
  SettingsView,
  TransferPriority,
  TransferView,
} from "#shared/ipc/views.ts";
import type { Closing } from "#shared/shares/share-log.ts";
import type { Links } from "../links/links.ts";
import type { Database } from "../store/database.ts";
import type { FileRecord } from "../store/files.ts";
import type { FolderProgress, TransferRecord } from "../store/transfers.ts";
import { Allowances } from "./allowances.ts";
import { TokenBucket } from "./bandwidth.ts";
import { ChunkRoom } from "./chunk-room.ts";
import type { ChunkWorker } from "./chunk-worker-client.ts";
import type { FolderSelection } from "./chunk-worker-protocol.ts";
import { Download } from "./download.ts";
import { makeDownloadFolder } from "./download-folder.ts";
import { type Files, specOf } from "./files.ts";
import { isSameSelection, selectionOf } from "./folder-selection.ts";
import { Offers } from "./offers.ts";
import { Seeder } from "./seeder.ts";
import type { Fault } from "./seeder-sessions.ts";
import { createSteadyLinks, type SteadyLinks } from "./steady-links.ts";
import { expectedBytesOf, isActive, isFinishing, startableOf, surplusOf, unstoredBytesOf } from "./transfer-places.ts";
import { TransferRecords } from "./transfer-records.ts";
import { TransferRoutes } from "./transfer-routes.ts";
import { isOver } from "./transfer-state.ts";
import { viewOfDownload } from "./transfer-view.ts";

export interface TransfersDeps {
  readonly env: Env;
  readonly db: Database;
  readonly worker: ChunkWorker;
  readonly links: Links;
  readonly files: Pick<
    Files,
    | "find"
    | "seedersOf"
    | "sourceOf"
    | "mayFetch"
    | "reportChanged"
    | "onMembersChanged"
    | "holds"
    | "closed"
    | "replacedBy"
    | "onReplaced"
    | "replacements"
  >;
  /** A download has just become complete. */
  readonly onCompleted: (fileId: FileId) => void;
  /** What keeps this person from sending us anything, and what to do about it; null when nothing does. */
  readonly hindranceOf: (owner: UserId) => ErrorView | null;
  /** A contact's name, for notices. */
  readonly nameOf: (peer: UserId) => string;
  readonly settings: () => TransferSettings & { downloadDirectory: string };
  readonly onSettingsChanged: Event<TransferSettings>;
}

type TransferSettings = Pick<
  SettingsView,
  "drainTimeoutMs" | "downloadBytesPerSecond" | "uploadBytesPerSecond" | "chunkStorageBytes"
>;

/**
 * Downloads, and serving what we share. Errors of the commands: `unknown_file`, `own_file`, `already_complete`,
 * `not_writable`, `not_a_folder`, `disk_full`, `quota_exceeded`, `unknown_transfer`, `too_late`, `not_failed`, `contact_blocked`.
 */
export interface Transfers extends Disposable {
  /** At most one in PROGRESS_INTERVAL_MS per download, and at once with every new state. */
  readonly onChanged: Event<TransferView>;
  readonly onNotice: Event<NoticeView>;
  /** A chunk of ours was handed to a link; `bytes` of the file. */
  readonly onServed: Event<{ peer: UserId; fileId: FileId; bytes: number }>;

  /**
   * Starts, or goes on with, a download. The space is reserved before it answers. Without a `directory` it goes to the
   * download folder of the settings, which is made if it is missing; a `directory` must exist. One that has begun goes on
   * with what it has, in the other `directory` if one is named. `selection`: what to take of a folder, all if it is left out;
   * one that has begun goes on with another selection, one that is complete fetches what is missing of it. Errors also
   * `bad_selection`.
   */
  start(fileId: string, directory?: string, selection?: FolderSelection): Promise<Result<TransferView>>;
  pause(fileId: string): Result<TransferView>;
  resume(fileId: string): Result<TransferView>;
  /** Deletes what was received; the transfer is gone from the list afterwards. */
  cancel(fileId: string): Result<TransferView>;
  /** How much of the bandwidth it gets beside others, from now on. */
  prioritize(fileId: string, priority: TransferPriority): Result<TransferView>;
  /** Starts a failed one again, or asks seeders again that refused. */
  retry(fileId: string): Result<TransferView>;
  list(): TransferView[];
  /**
   * The owner of files was blocked: downloads of them fail with `contact_blocked`, can be retried after unblocking, and
   * finish if everything has arrived. Or was removed: the downloads are cancelled, the files and their keys forgotten;
   * what was saved stays where it is.
   */
  contactGone(userId: UserId, why: "blocked" | "removed"): void;
  /**
   * We may not have this file any more: its download fails with `access_revoked`, or `file_withdrawn`, and what was received
   * is deleted.
   */
  accessLost(fileId: FileId, why: "revoked" | "left" | "withdrawn"): void;
  /** What keeps this person from sending us anything may have changed: waiting downloads say so. */
  contactChanged(userId: UserId): void;
  savedPath(fileId: string): string | null;
  /** Since the program started. `strayFrames`: frames of sessions that were over and forgotten when they came. */
  counters(): { strayFrames: number };
  /** What the chunks of unfinished downloads take of the space that they may take. */
  chunkUsage(): ChunkUsageView;
}

const contactBlocked: ErrorView = {
  type: "contact_blocked",
  message: "You blocked the person who shares this file. Unblock them, then try again.",
};

const accessRevoked: ErrorView = {
  type: "access_revoked",
  message: "You have no access to this file any more. What had arrived was deleted.",
};

const CLOSED: Record<Closing, ErrorView> = {
  withdrawn: { type: "file_withdrawn", message: "The owner withdrew this file. What had arrived was deleted." },
  expired: { type: "file_expired", message: "The time that the owner set for this file is over." },
  limit_reached: {
    type: "downloads_used_up",
    message: "This file was fetched as often as its owner allows.",
  },
};

interface StartWish {
  readonly directory: string | undefined;
  readonly selection: FolderSelection | undefined;
}

/** As it is written down. */
const writable = (selection: FolderSelection): FolderProgress["selection"] =>
  Array.isArray(selection) ? selection.map(([first, end]): [number, number] => [first, end]) : (selection as null);

const ownerOf = ({ offer }: FileRecord): UserId => offer.signed.manifest.ownerId;

export const createTransfers = (deps: TransfersDeps): Transfers => new FileTransfers(deps);

class FileTransfers implements Transfers {
  readonly #deps: TransfersDeps;
  readonly #records: TransferRecords;
  readonly #seeder: Seeder;
  readonly #owned = new DisposableStore();
  readonly #changed: Emitter<TransferView>;
  readonly #notices: Emitter<NoticeView>;
  readonly #served: Emitter<{ peer: UserId; fileId: FileId; bytes: number }>;
  readonly #downloads = new Map<FileId, Download>();
  readonly #starting = new Map<FileId, Promise<Result<TransferView>>>();
  readonly #links: SteadyLinks;
  readonly #routes: TransferRoutes;
  readonly #offers: Offers;
  readonly #upload = new TokenBucket();
  readonly #allowances: Allowances;
  readonly #room: ChunkRoom;
  readonly #linked = new Map<UserId, Generation>();
  readonly #progressTimers = new Map<Download, Disposable>();

  constructor(deps: TransfersDeps) {
    this.#deps = deps;
    this.#records = this.#owned.add(new TransferRecords(deps));
    const onError = (error: unknown): void =>
      deps.env.log.error("a listener of transfers failed", { reason: messageOf(error) });
    this.#changed = this.#owned.add(new Emitter<TransferView>(onError));
    this.#notices = this.#owned.add(new Emitter<NoticeView>(onError));
    this.#served = this.#owned.add(new Emitter<{ peer: UserId; fileId: FileId; bytes: number }>(onError));
    const { files, env, worker } = deps;
    this.#links = this.#owned.add(createSteadyLinks(deps.links, onError));
    const links = this.#links;
    this.#routes = new TransferRoutes(links, deps.worker);
    this.#offers = new Offers(
      files,
      worker,
      (fileId) => this.#downloads.get(fileId) ?? null,
      (fileId) => this.#onSavedChanged(fileId),
    );
    this.#seeder = this.#owned.add(
      new Seeder({
        env,
        links,
        worker,
        upload: this.#upload,
        offerOf: (fileId) => this.#offers.of(fileId),
        isLooking: (fileId) => this.#offers.isLooking(fileId),
        mayFetch: (peer, fileId) => files.mayFetch(peer, fileId),
        onInterest: (peer, fileId) => {
          this.#downloads.get(fileId)?.dispatch({ type: "seederInterested", peer });
          this.#offers.wanted(fileId);
        },
        onChanged: (fileId) => this.#offers.changed(fileId),
        onLost: (fileId, indices) => this.#offers.lost(fileId, indices),
        onServed: (served) => this.#served.emit(served),
      }),
    );
    this.#room = new ChunkRoom({
      env,
      limitBytes: () => deps.settings().chunkStorageBytes,
      downloads: () => this.#downloads.values(),
      remove: (download) => {
        download.dispatch({ type: "cancel" });
        this.#discardWhenDropped(download);
      },
      notify: (notice) => this.#notices.emit(notice),
    });
    this.#owned.add(files.onReplaced((fileId) => void this.#goOnWith(fileId)));
    this.#owned.add(files.onMembersChanged((fileId) => this.#onMembers(fileId)));
    this.#owned.add(links.onChanged((view) => this.#onLink(view)));
    this.#owned.add(links.onMessage((received) => this.#onMessage(received)));
    this.#owned.add(links.onBulk((received) => this.#routes.onBulk(received)));
    this.#owned.add(links.onDrained(({ peer, generation }) => this.#seeder.onDrained(peer, generation)));
    this.#owned.add(
      deps.onSettingsChanged((changed) => {
        const { drainTimeoutMs } = changed;
        for (const download of this.#downloads.values()) download.dispatch({ type: "configured", drainTimeoutMs });
        this.#limit(changed);
        this.#room.keepTo(changed.chunkStorageBytes);
      }),
    );
    this.#allowances = this.#owned.add(new Allowances(env.clock, () => this.#unfinished()));
    for (const view of links.list()) this.#onLink(view);
    this.#restore();
    this.#limit(deps.settings());
  }

  #limit({ downloadBytesPerSecond, uploadBytesPerSecond }: TransferSettings): void {
    this.#upload.limit(uploadBytesPerSecond, this.#deps.env.clock.monotonicMs());
    this.#allowances.limit(downloadBytesPerSecond);
  }

  get onChanged(): Event<TransferView> {
    return this.#changed.event;
  }
  get onNotice(): Event<NoticeView> {
    return this.#notices.event;
  }
  get onServed(): Event<{ peer: UserId; fileId: FileId; bytes: number }> {
    return this.#served.event;
  }

  // ---- Commands -----------------------------------------------------------------------------------------------------

  start(fileId: string, directory?: string, selection?: FolderSelection): Promise<Result<TransferView>> {
    const file = this.#deps.files.find(fileId);
    if (file === null) return Promise.resolve(fail("unknown_file", "This file is not known here."));
    const id = file.offer.signed.manifest.fileId;
    const running = this.#starting.get(id);
    if (running !== undefined) return running;
    if (selection !== undefined && file.offer.folder === undefined)
      return Promise.resolve(fail("bad_selection", "This is a file; only of a folder parts can be chosen."));
    const ranges = Array.isArray(selection) ? selectionOf(selection) : ok(selection);
    if (!ranges.ok) return Promise.resolve(ranges);
    const starting = this.#start(id, file, { directory, selection: ranges.value }).finally(() => {
      this.#starting.delete(id);
      this.#schedule();
    });
    this.#starting.set(id, starting);
    return starting;
  }

  async #start(fileId: FileId, file: FileRecord, wish: StartWish): Promise<Result<TransferView>> {
    const { directory: chosen, selection } = wish;
    if (file.sourcePath !== null) return fail("own_file", "This file is yours; it is on this computer already.");
    const refusal = this.#refusalOf(file);
    if (refusal !== null) return err(refusal);
    const before = this.#downloads.get(fileId);
    if (before !== undefined) {
      const answer = await this.#startAgain(before, wish);
      if (answer !== null) return answer;
    }
    const { env, worker, settings } = this.#deps;
    const directory = resolve(chosen ?? settings().downloadDirectory);
    if (chosen === undefined) {
      const made = await makeDownloadFolder(directory);
      if (!made.ok) return made;
    }
    const { sizeBytes } = file.offer.signed.manifest;
    // How much a part of a folder is, is not known before its list is here.
    const refused = this.#room.begin(fileId, file.offer.name, selection == null ? sizeBytes : 0);
    if (refused !== null) return err(refused);
    const counters = { requested: 0, duplicate: 0, late: 0, rejected: 0 };
    const startedAtMs = env.clock.now();
    const folder = file.offer.folder === undefined ? null : { selection: writable(selection ?? null), counts: null };
    const status = { kind: "active" } as const;
    const priority = before?.priority ?? "normal";
    const record: TransferRecord = { fileId, directory, priority, startedAtMs, status, stored: 0, counters, folder };
    const download = this.#create(file, record);
    // Before any space is reserved, or nobody would give it back after a crash.
    if (!this.#records.save(record)) {
      this.#records.forget(fileId);
      return fail("disk_full", "The disk with Weir's data cannot be written to. Free some space, then try again.");
    }
    const prepared = await this.#prepare(download);
    if (this.#owned.disposed) return fail("closing", "Weir is closing. The download goes on after the next start.");
    if (!prepared.ok) {
      this.#records.remove(fileId);
      return prepared;
    }
    if (this.#deps.files.find(fileId) === null) {
      worker.run("drop", { fileId, directory, what: "part" });
      return fail("unknown_file", "This file is not known here any more.");
    }
    this.#adopt(download);
    return ok(this.#view(download));
  }

  /** Makes the temporary file where the download is saved, when there is room for it and what else is under way. */
  async #prepare({ spec, directory, state, file, folder }: Download): Promise<Result<null>> {
    const others = [...this.#downloads.values()].filter((other) => other.spec.fileId !== spec.fileId);
    const expected = others.map((other) => expectedBytesOf(other.spec, other.state));
    // How much a part of a folder is, the worker knows.
    const own = folder === null || folder.selection === null ? unstoredBytesOf(spec, state) : 0;
    const unstoredBytes = expected.reduce((sum, bytes) => sum + bytes, own);
    const choice = folder === null ? {} : { folder: { selection: folder.selection, name: file.offer.name } };
    const prepared = await this.#deps.worker.run("prepare", { spec, directory, unstoredBytes, ...choice }).result;
    return prepared.ok ? prepared : err({ type: prepared.error.type, message: prepared.error.message });
  }

  /** Null when it has to be downloaded anew. */
  async #startAgain(
    download: Download,
    { directory: chosen, selection }: StartWish,
  ): Promise<Result<TransferView> | null> {
    // The list is all that is asked for, and whatever goes on already has it or gets it.
    if (selection === "choose" && download.state.kind !== "cancelled") return ok(this.#view(download));
    const { folder } = download;
    switch (download.state.kind) {
      case "complete": {
        const isThere = await stat(download.state.savedPath).then(
          (found) => (folder === null ? found.isFile() : found.isDirectory()),
          () => false,
        );
        // What is in the folder already is found there and not fetched again.
        const isAll = folder === null || (folder.selection === null && selection === undefined);
        if (isThere && isAll) return fail("already_complete", "This file was downloaded already.");
        await download.dropped;
        this.#discard(download);
        return null;
      }
      case "cancelled":
        await download.dropped;
        return null;
      default: {
        if (folder !== null && !isSameSelection(folder.selection, selection ?? folder.selection)) {
          if (isFinishing(download.state))
            return fail("too_late", "The files are being written already. Choose others when they are finished.");
          download.choose(writable(selection ?? null));
        }
        const moved = await this.#move(download, resolve(chosen ?? download.directory));
        if (!moved.ok) return moved;
        return download.state.kind === "failed" ? this.retry(download.spec.fileId) : this.resume(download.spec.fileId);
      }
    }
  }

  /** Saves it in another folder. What was received is in chunks.db and stays there. */
  async #move(download: Download, directory: string): Promise<Result<unknown>> {
    const { directory: before, spec } = download;
    if (directory === before) return ok(null);
    if (isFinishing(download.state))
      return fail("too_late", "The file is being written to its folder already. Move it when it is finished.");
    // It does not run meanwhile, or the file could be on its way to the old folder.
    if (isActive(download.state)) download.dispatch({ type: "queue" });
    // Written down first, as with a new one.
    download.moveTo(directory);
    const prepared = await this.#prepare(download);
    if (this.#owned.disposed) return fail("closing", "Weir is closing. The download goes on after the next start.");
    const dropPart = (from: string): unknown =>
      this.#deps.worker.run("drop", { fileId: spec.fileId, directory: from, what: "part" });
    if (!prepared.ok) {
      download.moveTo(before);
      return prepared;
    }
    // The old folder may be gone, or the reason for the move: what cannot be removed there is left.
    dropPart(before);
    if (download.state.kind !== "cancelled") return ok(null);
    dropPart(directory);
    return fail("unknown_transfer", "This download was cancelled meanwhile.");
  }

  pause(fileId: string): Result<TransferView> {
    return this.#command(fileId, (download) => {
      const { kind } = download.state;
      if (kind === "assembling" || kind === "verifying" || kind === "complete")
        return { type: "too_late", message: "Everything has arrived already; the file is being finished." };
      if (kind === "failed") return { type: "not_running", message: "This download has stopped. Retry or cancel it." };
      download.dispatch({ type: "pause" });
      download.checkpoint();
      return null;
    });
  }

  resume(fileId: string): Result<TransferView> {
    return this.#command(fileId, (download) => {
      const refusal = this.#refusalOf(download.file) ?? this.#room.goOn(download);
      if (refusal !== null) return refusal;
      if (download.state.kind === "failed") download.dispatch({ type: "retry" });
      else if (download.state.kind === "idle" || download.state.kind === "pausing") {
        download.dispatch({ type: "queue" });
        download.checkpoint();
      }
      return null;
    });
  }

  cancel(fileId: string): Result<TransferView> {
    return this.#command(fileId, (download) => {
      download.dispatch({ type: "cancel" });
      if (download.state.kind !== "cancelled")
        return { type: "already_complete", message: "This download is complete; delete the file instead." };
      this.#discardWhenDropped(download);
      return null;
    });
  }

  prioritize(fileId: string, priority: TransferPriority): Result<TransferView> {
    return this.#command(fileId, (download) => {
      download.prioritize(priority);
      this.#publish(download);
      return null;
    });
  }

  retry(fileId: string): Result<TransferView> {
    return this.#command(fileId, (download) => {
      if (download.state.kind === "complete")
        return { type: "already_complete", message: "This file was downloaded already." };
      const refusal = this.#refusalOf(download.file) ?? this.#room.goOn(download);
      if (refusal !== null) return refusal;
      download.dispatch({ type: "retry" });
      return null;
    });
  }

  #command(
    fileId: string,
    run: (download: Download) => { type: string; message: string } | null,
  ): Result<TransferView> {
    const known = this.#deps.files.find(fileId);
    if (known === null) return fail("unknown_file", "This file is not known here.");
    const download = this.#downloads.get(known.offer.signed.manifest.fileId);
    if (download === undefined || download.state.kind === "cancelled")
      return fail("unknown_transfer", "This file is not being downloaded. Start the download first.");
    const error = run(download);
    if (error !== null) return err(error);
    this.#schedule();
    return ok(this.#view(download));
  }

  contactGone(userId: UserId, why: "blocked" | "removed"): void {
    for (const download of this.#of(userId)) {
      if (why === "removed") this.#forget(download);
      else download.dispatch({ type: "giveUp", error: contactBlocked });
    }
    if (why === "removed") this.#records.removeFilesOf(userId);
  }

  accessLost(fileId: FileId, why: "revoked" | "left" | "withdrawn"): void {
    const error = why === "withdrawn" ? CLOSED.withdrawn : accessRevoked;
    this.#downloads.get(fileId)?.dispatch({ type: "revoked", error });
  }

  contactChanged(userId: UserId): void {
    for (const download of this.#of(userId)) if (isActive(download.state)) this.#onDownload(download, "phase");
  }

  #of(owner: UserId): Download[] {
    return [...this.#downloads.values()].filter(({ file }) => ownerOf(file) === owner);
  }

  /** Of a blocked person nothing will ever come. A changed key is no refusal: the download waits until it is accepted. */
  #refusalOf(file: FileRecord): ErrorView | null {
    const { fileId } = file.offer.signed.manifest;
    const closed = this.#deps.files.closed(fileId);
    if (closed !== null) return CLOSED[closed];
    if (this.#deps.files.find(fileId)?.access !== "granted") return accessRevoked;
    const hindrance = this.#deps.hindranceOf(ownerOf(file));
    return hindrance?.type === contactBlocked.type ? contactBlocked : null;
  }

  /** Ends it at once; nothing of it is known any more. What could not be deleted is swept at the next start. */
  #forget(download: Download): void {
    const { fileId } = download.spec;
    download.dispatch({ type: "cancel" });
    // One that is complete is not cancelled, but its hashes go.
    if (download.state.kind !== "cancelled")
      this.#deps.worker.run("drop", { fileId, directory: null, what: "everything" });
    download.dispose();
    this.#progressTimers.get(download)?.dispose();
    this.#progressTimers.delete(download);
    this.#downloads.delete(fileId);
    this.#records.forget(fileId);
  }

  list(): TransferView[] {
    return [...this.#downloads.values()].filter(({ state }) => state.kind !== "cancelled").map((d) => this.#view(d));
  }

  savedPath(fileId: string): string | null {
    for (const { spec, state } of this.#downloads.values())
      if (spec.fileId === fileId) return state.kind === "complete" ? state.savedPath : null;
    return null;
  }

  chunkUsage(): ChunkUsageView {
    return this.#room.usage();
  }

  counters(): { strayFrames: number } {
    return { strayFrames: this.#routes.strayFrames };
  }

  // ---- Downloads ------------------------------------------------------------------------------------------------------

  /** Those that may still want something. The finished ones are thousands after some time, and nothing of them changes. */
  *#unfinished(): Iterable<Download> {
    for (const download of this.#downloads.values()) if (!isOver(download.state)) yield download;
  }

  #restore(): void {
    this.#sweep();
    for (const record of this.#records.all()) {
      const file = this.#deps.files.find(record.fileId);
      if (file === null) continue;
      const download = this.#create(file, record);
      this.#downloads.set(record.fileId, download);
      download.clean();
      this.#offers.look(download);
      this.#tellHeld(download);
      if (record.status.kind === "cancelled") this.#discardWhenDropped(download);
      this.#introduce(download);
    }
    // A kill may have come before a download went on under its new key.
    queueMicrotask(() => {
      if (!this.#owned.disposed) for (const fileId of this.#deps.files.replacements()) void this.#goOnWith(fileId);
    });
    this.#schedule();
  }

  /** What a kill in the middle of hashing left, or a deletion that failed, is known to nobody but chunks.db. */
  #sweep(): void {
    const { worker, env } = this.#deps;
    void worker.run("sweep", { known: this.#records.knownFiles() }).result.then((swept) => {
      if (!swept.ok) env.log.warn("leftovers in chunks.db were not removed", { type: swept.error.type });
      else if (swept.value > 0) env.log.info("leftovers in chunks.db were removed", { files: swept.value });
    });
  }

  #create(file: FileRecord, record: TransferRecord): Download {
    const { env, worker, settings } = this.#deps;
    const links = this.#links;
    return new Download(
      {
        env,
        worker,
        links,
        seeders: (fileId) => this.#deps.files.seedersOf(fileId),
        drainTimeoutMs: settings().drainTimeoutMs,
        openRoute: (download, session, peer, generation) => this.#routes.open({ download, session }, peer, generation),
        closeRoute: (peer, generation, tag) => this.#routes.close(peer, generation, tag),
        save: (saved) => this.#records.save(saved),
        onChanged: (download, change) => this.#onDownload(download, change),
        onFault: (download, peer, fault) => this.#onFault(download, peer, fault),
      },
      file,
      record,
    );
  }

  #adopt(download: Download): void {
    this.#downloads.set(download.spec.fileId, download);
    this.#introduce(download);
    this.#schedule();
  }

  #introduce(download: Download): void {
    this.#allowances.begin(download);
    const owner = ownerOf(download.file);
    const members = this.#deps.files.seedersOf(download.spec.fileId);
    // Before the links: whether somebody's refusal is the end depends on who else there is.
    download.dispatch({ type: "members", owner, others: members.filter((member) => member !== owner) });
    for (const peer of members) {
      const generation = this.#linked.get(peer);
      if (generation !== undefined) download.dispatch({ type: "seederJoined", peer, generation });
    }
  }

  #discardWhenDropped(download: Download): void {
    void download.dropped.then((isGone) => {
      // Without its record nobody would ever delete what is left of it.
      if (isGone && !this.#owned.disposed) this.#discard(download);
    });
  }

  #discard(download: Download): void {
    download.dispose();
    this.#progressTimers.get(download)?.dispose();
    this.#progressTimers.delete(download);
    if (this.#downloads.get(download.spec.fileId) !== download) return;
    this.#downloads.delete(download.spec.fileId);
    this.#records.remove(download.spec.fileId);
  }

  /**
   * Starts those that wait, in order, while there are free places. One that only waits for its seeders takes none; when
   * they come back together, the last ones wait for their turn again.
   */
  #schedule(): void {
    if (this.#owned.disposed) return;
    const weightOf = ({ priority }: Download): number => TRANSFER_WEIGHTS[priority];
    const downloads = [...this.#unfinished()].sort((a, b) => weightOf(b) - weightOf(a));
    for (const download of surplusOf(downloads)) download.dispatch({ type: "queue" });
    for (const download of startableOf(downloads))
      if (!this.#starting.has(download.spec.fileId)) download.dispatch({ type: "start" });
  }

  #onDownload(download: Download, change: "progress" | "phase"): void {
    if (this.#owned.disposed || !this.#isKnown(download)) return;
    const { fileId } = download.spec;
    this.#allowances.grant();
    this.#seeder.progressed(fileId);
    if (change === "phase") {
      this.#seeder.recheck(fileId);
      this.#offers.look(download);
      this.#tellHeld(download);
      if (download.state.kind === "complete") this.#deps.onCompleted(fileId);
      this.#publish(download);
    } else if (!this.#progressTimers.has(download)) {
      const timer = this.#deps.env.clock.setTimer(PROGRESS_INTERVAL_MS, () => {
        this.#progressTimers.delete(download);
        this.#publish(download);
      });
      this.#progressTimers.set(download, timer);
    }
  }

  /** Silence and refusals are not worth a notice; that somebody sends what is not the file is. */
  #onFault({ file }: Download, peer: UserId, fault: Fault): void {
    const { env, nameOf } = this.#deps;
    env.log.warn("a seeder is not asked any more", { fault });
    const what = fault === "bad_data" ? "sent damaged data" : "did not keep to what they offered";
    this.#notices.emit({
      level: "warning",
      type: "bad_seeder",
      message: `${nameOf(peer)} ${what} for “${file.offer.name}”. Nothing of it was kept, and they are not asked for this file any more.`,
      atMs: env.clock.now(),
    });
  }

  #tellHeld(download: Download): void {
    const chunks = download.state.kind === "complete" ? this.#offers.savedChunks(download) : null;
    if (chunks !== null) this.#deps.files.holds(download.spec.fileId, chunks);
  }

  /** The finished file, or a part of a folder, is gone from where it was saved, or back there. */
  #onSavedChanged(fileId: FileId): void {
    const download = this.#downloads.get(fileId);
    if (this.#owned.disposed || download === undefined) return;
    this.#seeder.recheck(fileId);
    this.#tellHeld(download);
    this.#publish(download);
  }

  /** Somebody may be asked now, or not any more. */
  #onMembers(fileId: FileId): void {
    if (this.#owned.disposed) return;
    this.#seeder.recheck(fileId);
    const download = this.#downloads.get(fileId);
    if (download === undefined) return;
    const closed = this.#deps.files.closed(fileId);
    // What has arrived stays: the owner may extend the time.
    if (closed !== null && isActive(download.state)) download.dispatch({ type: "giveUp", error: CLOSED[closed] });
    const members = this.#deps.files.seedersOf(fileId);
    for (const [peer, { generation }] of download.state.swarm.peers)
      if (!members.includes(peer)) download.dispatch({ type: "seederLeft", peer, generation });
    this.#introduce(download);
  }

  /**
   * A download whose file was shared anew under another key goes on with that one, with what has arrived. Done again at the
   * next start if it was interrupted, which changes nothing of what was done.
   */
  async #goOnWith(fileId: FileId): Promise<void> {
    const { files, worker, env } = this.#deps;
    const file = files.find(fileId);
    const old = file === null ? null : files.replacedBy(file.offer);
    const before = old === null ? undefined : this.#downloads.get(old.offer.signed.manifest.fileId);
    if (file === null || before === undefined) return;
    const { spec, directory, folder, priority, state } = before;
    if (isFinishing(state) || state.kind === "cancelled") return;
    const isPaused = state.kind === "idle" && state.rest === "paused";
    before.dispatch({ type: "giveUp", error: CLOSED.expired });
    const taken = await worker.run("carryOver", { from: spec, to: specOf(file.offer) }).result;
    if (this.#owned.disposed) return;
    if (!taken.ok) env.log.warn("what had arrived under the old key was not taken over", { type: taken.error.type });
    const started = await this.start(fileId, directory, folder?.selection ?? undefined);
    if (this.#owned.disposed) return;
    if (!started.ok) return env.log.warn("a download does not go on under the new key", { type: started.error.type });
    this.prioritize(fileId, priority);
    if (isPaused) this.pause(fileId);
    this.cancel(spec.fileId);
  }

  #isKnown(download: Download): boolean {
    return this.#downloads.get(download.spec.fileId) === download;
  }

  #publish(download: Download): void {
    this.#progressTimers.get(download)?.dispose();
    this.#progressTimers.delete(download);
    const view = this.#view(download);
    this.#changed.emit(view);
    // A place may have become free, or been taken. Later, because this may be in the middle of a step.
    queueMicrotask(() => this.#schedule());
    // Nothing happens any more, and the shown speed has to fall to zero all the same.
    if (view.bytesPerSecond > 0) this.#onDownload(download, "progress");
  }

  #view(download: Download): TransferView {
    const hindrance = this.#deps.hindranceOf(ownerOf(download.file));
    return viewOfDownload(download, this.#deps.env.clock, {
      ...{ pathOf: (peer) => this.#pathOf(peer), hindrance },
      savedChunks: this.#offers.savedChunks(download),
    });
  }

  #pathOf(peer: UserId): PathKind {
    return this.#links.view(peer).path ?? "direct";
  }

  // ---- Links ----------------------------------------------------------------------------------------------------------

  #onLink(view: LinkView): void {
    const parsed = v.safeParse(UserIdSchema, view.peerId);
    if (!parsed.success) return;
    const peer = parsed.output;
    const before = this.#linked.get(peer);
    const now = view.state === "connected" ? view.generation : undefined;
    if (before === now) return;
    const mayServe = ({ spec }: Download): boolean => this.#deps.files.seedersOf(spec.fileId).includes(peer);
    if (now !== undefined) this.#linked.set(peer, now);
    else this.#linked.delete(peer);
    if (before !== undefined) {
      this.#seeder.onLinkLost(peer, now ?? null);
      const goOn = this.#routes.closeLink(peer, before, now ?? null);
      for (const download of this.#unfinished())
        if (now !== undefined && goOn.has(download) && mayServe(download))
          download.moveSeeder(peer, before, now, goOn.get(download) ?? []);
        else download.dispatch({ type: "seederLeft", peer, generation: before });
    }
    if (now === undefined) return;
    for (const download of this.#unfinished())
      if (mayServe(download)) download.dispatch({ type: "seederJoined", peer, generation: now });
    this.#schedule();
  }

  #onMessage({ peer, generation, over, message }: Parameters<Parameters<SteadyLinks["onMessage"]>[0]>[0]): void {
    switch (message.type) {
      case "open":
      case "leaves":
      case "request":
      case "cancel":
      case "stop":
        this.#seeder.onMessage(peer, generation, message, over);
        return;
      case "accept":
      case "have":
      case "refuse":
      case "unavailable":
      case "stopped":
        this.#routes.onAnswer(peer, generation, message);
        return;
      default:
        // Chat and typing are for others.
        return;
    }
  }

  /** Everything is as after a crash: what runs goes on with the next start. */
  dispose(): void {
    for (const download of this.#downloads.values()) {
      if (isActive(download.state)) download.checkpoint();
      download.dispose();
    }
    for (const timer of this.#progressTimers.values()) timer.dispose();
    this.#progressTimers.clear();
    this.#owned.dispose();
  }
}
