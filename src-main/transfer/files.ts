import { bytesEqual, fromBase64Url, toHex } from "#shared/base/bytes.ts";
import { type Disposable, DisposableStore } from "#shared/base/disposable.ts";
import { Emitter, type Event } from "#shared/base/emitter.ts";
import type { Env } from "#shared/base/env.ts";
import type { ChatId, FileId, UserId } from "#shared/base/ids.ts";
import { err, fail, messageOf, ok, type Result } from "#shared/base/result.ts";
import type { FileView, FolderEntryView, NoticeView, ShareProgressView } from "#shared/ipc/views.ts";
import { append, type Closing, emptyList, type ShareOperation, type ShareTerms } from "#shared/shares/share-log.ts";
import { type FileOffer, type Manifest, manifestSigningBytes } from "#shared/wire/manifest.ts";
import { type Account, verifyAccountSignature } from "../crypto/identity.ts";
import { logCrypto } from "../crypto/signed-log.ts";
import type { Shares } from "../shares/shares.ts";
import type { Signaling } from "../signaling/signaling.ts";
import { reached } from "../steps.ts";
import type { Database } from "../store/database.ts";
import { type FileRecord, FilesTable } from "../store/files.ts";
import type { ChunkWorker } from "./chunk-worker-client.ts";
import type { ChunkSource, FileSpec, RepairReport } from "./chunk-worker-protocol.ts";
import { safeFileName } from "./file-name.ts";
import { FileRegistry } from "./file-registry.ts";
import { isSamePlaintext, readAgain, Sharing } from "./file-sharing.ts";
import { Sources } from "./sources.ts";

export interface FilesDeps {
  readonly env: Env;
  readonly db: Database;
  readonly account: Pick<Account, "userId" | "sign">;
  readonly worker: Pick<ChunkWorker, "run">;
  readonly signaling: Pick<Signaling, "request" | "state" | "serverId" | "onConnected">;
  readonly accountKeyOf: (peer: UserId) => Uint8Array | null;
  /** An accepted contact with the key that was accepted. */
  readonly isTrusted: (peer: UserId) => boolean;
  /** Whether the chat would take a file now; asked before a large file is read for nothing. */
  readonly maySend: (chatId: ChatId) => Result<unknown>;
  /** Everybody in the chat but ourselves: who may have what is shared there. */
  readonly membersOf: (chatId: ChatId) => readonly UserId[];
  /** Queues the chat message that carries the offer. */
  readonly sendFile: (chatId: ChatId, offer: FileOffer, start: ShareOperation) => Result<unknown>;
  /** Whether this person has signed that they have the file. */
  readonly hasCompleted: (fileId: FileId, userId: UserId) => boolean;
  /** The offer of an own file is on its way to that person. */
  readonly onOffered: (fileId: FileId, userId: UserId) => void;
  /** The server has the record of an own file, and its list. */
  readonly onRegistered: (fileId: FileId) => void;
  readonly shares: Pick<
    Shares,
    | "start"
    | "verdict"
    | "members"
    | "revoking"
    | "follow"
    | "operations"
    | "list"
    | "registered"
    | "onChanged"
    | "closed"
    | "setTerms"
  >;
}

/** The files that we own and those that we were offered. The bytes of our own stay where they are. */
export interface Files extends Disposable {
  readonly onChanged: Event<FileView>;
  readonly onNotice: Event<NoticeView>;
  readonly onShareProgress: Event<ShareProgressView>;

  /**
   * Reads and hashes the file once, signs its manifest and queues the message; the server hears of it when it can. Errors:
   * `file_missing`, `not_a_file`, `file_unreadable`, `file_changed`, `too_large`, `too_many_shares`, `disk_full`, and those
   * of the message (`unknown_chat`, ...), as far as possible before the file is read; `cancelled` by the call below.
   */
  share(chatId: ChatId, path: string, terms?: Partial<ShareTerms>): Promise<Result<FileView>>;
  /**
   * Shares an own file anew under another key with those of its members who have not fetched it, and closes the old one:
   * what they have of it they keep, and everything else goes to them under a key that nobody else was ever sent. Errors
   * besides those of `share`: `unknown_contact`, when members have given it to strangers; nothing is changed then.
   */
  rekey(fileId: FileId): Promise<Result<FileView>>;
  /** The file that an offer takes the place of, when both are the same plaintext of the same owner; null otherwise. */
  replacedBy(offer: FileOffer): FileRecord | null;
  /** Files of others that take the place of others. */
  replacements(): FileId[];
  /** Somebody offered a file that takes the place of one that is known here. */
  readonly onReplaced: Event<FileId>;
  /** Stops reading a file that is being shared. Error `unknown_file` when there is nothing to stop. */
  cancelShare(fileId: string): Result<{ fileId: string }>;
  get(fileId: string): Result<FileView>;
  /** Asks the server who holds a file of somebody else. Without an answer everything stays as it is. */
  refresh(fileId: string): Promise<void>;
  /** What lies in a folder of a shared folder. Errors: `unknown_file`, `bad_folder`, `list_missing`. */
  entries(fileId: string, path: string, offset: number): Promise<Result<{ entries: FolderEntryView[]; total: number }>>;
  /**
   * Compares the owner's signed record of a file with the server's before anything of it is fetched. `record_mismatch`:
   * there are two; somebody means to pass another file off as this one. Without a server the owner's signature has to do.
   */
  checkRecord(fileId: string): Promise<Result<void>>;
  view(fileId: string): FileView | null;
  list(): FileView[];
  /**
   * Takes an offer from a chat message. Synchronous, because it is part of the transaction that stores the message. From
   * somebody who does not own the file it comes with the `start` of its share list, which says whose it is.
   */
  record(offer: FileOffer, from: UserId, start?: ShareOperation): Result<void>;

  /** Real paths of our own files. */
  sharedPaths(): string[];
  /** Everything that a download needs; null for an unknown file. */
  find(fileId: string): FileRecord | null;
  /** Peers that a download may ask. */
  seedersOf(fileId: FileId): UserId[];
  /** Where the chunks of a file come from when we serve it; null when we do not. */
  sourceOf(fileId: FileId): { spec: FileSpec; source: ChunkSource } | null;
  /** Whether this peer has a right to the file's chunks now; `later` when the list has to be fetched first. */
  mayFetch(peer: UserId, fileId: FileId): "serve" | "later" | "refuse";
  /** Whom a download may ask, or who may be served, may have changed. */
  readonly onMembersChanged: Event<FileId>;
  /** Tells the server what we hold of a file of somebody else: so far only for others to see. */
  holds(fileId: FileId, chunks: number): void;
  /** Tells the user that a shared file is not what it was any more. */
  reportChanged(fileId: FileId): void;
  /** Why nobody but its owner gets the file any more; null while it is given out. */
  closed(fileId: FileId): Closing | null;
  /** chunks.db was made anew: says so, and reads own files again whose hashes were lost. Never rejects. */
  repaired(report: RepairReport): Promise<void>;
  /** The server has to be given the record of this file of ours again. */
  registerAgain(fileId: FileId): void;
}

export const specOf = ({ signed, key, sha256, folder }: FileOffer): FileSpec => {
  const { fileId, sizeBytes, chunkBytes, chunkCount, root } = signed.manifest;
  const part = folder === undefined ? {} : { folder: { listBytes: folder.listBytes, listSha256: sha256 } };
  return { fileId, sizeBytes, chunkBytes, chunkCount, root, key, ...part };
};

export const createFiles = (deps: FilesDeps): Files => new SharedFiles(deps);

class SharedFiles implements Files {
  readonly #deps: FilesDeps;
  readonly #table: FilesTable;
  readonly #owned = new DisposableStore();
  readonly #changed: Emitter<FileView>;
  readonly #notices: Emitter<NoticeView>;
  readonly #shareProgress: Emitter<ShareProgressView>;
  readonly #replaced: Emitter<FileId>;
  readonly #reported = new Set<FileId>();
  readonly #sources: Sources;
  readonly #registry: FileRegistry;
  readonly #sharing: Sharing;

  constructor(deps: FilesDeps) {
    this.#deps = deps;
    this.#table = new FilesTable(deps.db);
    const onError = (error: unknown): void =>
      deps.env.log.error("a listener of files failed", { reason: messageOf(error) });
    this.#changed = this.#owned.add(new Emitter<FileView>(onError));
    this.#notices = this.#owned.add(new Emitter<NoticeView>(onError));
    this.#shareProgress = this.#owned.add(new Emitter<ShareProgressView>(onError));
    this.#replaced = this.#owned.add(new Emitter<FileId>(onError));
    this.#sources = new Sources((fileId) => this.#sourceChanged(fileId));
    const table = this.#table;
    this.#registry = this.#owned.add(
      new FileRegistry({
        ...{ ...deps, table, isThere: (fileId) => this.#sources.isThere(fileId) },
        onHolders: (fileId) => this.#tell(fileId),
        onMismatch: (offer) => this.#warnOfMismatch(offer),
      }),
    );
    this.#sharing = this.#owned.add(
      new Sharing({
        ...{ ...deps, table, get: (fileId) => this.get(fileId) },
        onProgress: (progress) => this.#shareProgress.emit(progress),
        announced: (fileId) => {
          this.#registry.registerAll();
          this.#tell(fileId);
          return this.get(fileId);
        },
      }),
    );
    this.#owned.add(deps.shares.onChanged((fileId) => this.#tell(fileId)));
    this.#table.doubtGone();
    void this.#lookAtSources();
  }

  get onChanged(): Event<FileView> {
    return this.#changed.event;
  }
  get onNotice(): Event<NoticeView> {
    return this.#notices.event;
  }
  get onMembersChanged(): Event<FileId> {
    return this.#deps.shares.onChanged;
  }
  get onReplaced(): Event<FileId> {
    return this.#replaced.event;
  }
  get onShareProgress(): Event<ShareProgressView> {
    return this.#shareProgress.event;
  }

  share(chatId: ChatId, path: string, terms?: Partial<ShareTerms>): Promise<Result<FileView>> {
    return this.#sharing.share(chatId, path, terms);
  }

  rekey(fileId: FileId): Promise<Result<FileView>> {
    return this.#sharing.rekey(fileId);
  }

  cancelShare(fileId: string): Result<{ fileId: string }> {
    return this.#sharing.cancel(fileId);
  }

  refresh(fileId: string): Promise<void> {
    return this.#registry.refresh(fileId);
  }

  holds(fileId: FileId, chunks: number): void {
    this.#registry.holds(fileId, chunks);
  }

  registerAgain(fileId: FileId): void {
    this.#registry.registerAgain(fileId);
  }

  get(fileId: string): Result<FileView> {
    const view = this.view(fileId);
    return view === null ? fail("unknown_file", "This file is not known here.") : ok(view);
  }

  async entries(
    fileId: string,
    path: string,
    offset: number,
  ): Promise<Result<{ entries: FolderEntryView[]; total: number }>> {
    const record = this.#table.get(fileId);
    if (record === null) return fail("unknown_file", "This file is not known here.");
    const listed = await this.#deps.worker.run("listFolder", { spec: specOf(record.offer), path, offset }).result;
    if (!listed.ok) return err({ type: listed.error.type, message: listed.error.message });
    return ok({ entries: [...listed.value.children], total: listed.value.total });
  }

  async checkRecord(fileId: string): Promise<Result<void>> {
    await this.refresh(fileId);
    if (!this.#registry.isMismatched(fileId)) return ok(undefined);
    return fail("record_mismatch", "The server describes another file under this id. It is not downloaded.");
  }

  #warnOfMismatch(offer: FileOffer): void {
    this.#notices.emit({
      level: "error",
      type: "record_mismatch",
      message: `The server describes another file than the one that you were sent as ${offer.name}. Somebody may be attacking you; it is not downloaded.`,
      atMs: this.#deps.env.clock.now(),
    });
  }

  view(fileId: string): FileView | null {
    const record = this.#table.get(fileId);
    return record === null ? null : this.#viewOf(record);
  }

  list(): FileView[] {
    return this.#table.all().map((record) => this.#viewOf(record));
  }

  #viewOf(record: FileRecord): FileView {
    const revoking = this.#deps.shares.revoking(record.offer.signed.manifest.fileId);
    const sharedWith = record.sharedWith.filter((userId) => !revoking.includes(userId));
    const { fileId } = record.offer.signed.manifest;
    const end = this.#deps.shares.closed(fileId);
    const closed = end !== null && this.#table.isReplaced(fileId) ? "replaced" : end;
    return { ...viewOf({ ...record, sharedWith }, this.#seedersOf(record)), ...(closed === null ? {} : { closed }) };
  }

  /** Of an own file: ourselves while it is there. Of another's: whom the server names, or else its owner. */
  #seedersOf(record: FileRecord): readonly string[] {
    const { fileId, ownerId } = record.offer.signed.manifest;
    if (record.sourcePath !== null) return this.#sources.isThere(fileId) ? [ownerId] : [];
    return this.#registry.holdersOf(record);
  }

  replacedBy(offer: FileOffer): FileRecord | null {
    const old = offer.replaces === undefined ? null : this.#table.get(offer.replaces);
    return old !== null && old.sourcePath === null && isSamePlaintext(old.offer, offer) ? old : null;
  }

  replacements(): FileId[] {
    return this.#table.replacements();
  }

  sharedPaths(): string[] {
    return this.#table.all().flatMap(({ sourcePath }) => (sourcePath === null ? [] : [sourcePath]));
  }

  find(fileId: string): FileRecord | null {
    return this.#table.get(fileId);
  }

  record(offer: FileOffer, from: UserId, start?: ShareOperation): Result<void> {
    const { manifest, signature } = offer.signed;
    // 22 characters can spell more than 16 bytes' worth; the cipher needs the one true spelling.
    if (!fromBase64Url(manifest.fileId).ok) return fail("bad_manifest", "The file's description holds a malformed id.");
    const ownerKey = this.#ownerKeyOf(manifest, from, start);
    if (ownerKey === null)
      return fail("bad_manifest", "The file's description names another owner than its sender, without a proof.");
    if (!verifyAccountSignature(ownerKey, manifestSigningBytes(manifest), signature))
      return fail("bad_signature", "The file's description is not signed by its owner.");
    const safe = { ...offer, name: safeFileName(offer.name) };
    const known = this.#table.get(manifest.fileId);
    if (known === null)
      this.#table.insert({
        ...{ offer: safe, sharedWith: [this.#deps.account.userId], version: 1, sourcePath: null, registered: true },
      });
    else if (!isSameManifest(known.offer, offer)) return fail("conflict", "Another file has this id.");
    else if (known.access !== "granted") this.#table.giveKey(safe);
    else if (!isSameSecret(known.offer, offer)) return fail("conflict", "This file is known here with another key.");
    reached("offered", manifest.fileId);
    // Told after the caller's transaction, which may still be undone.
    queueMicrotask(() => {
      this.#tell(manifest.fileId);
      if (this.replacedBy(safe) !== null) this.#replaced.emit(manifest.fileId);
      void this.refresh(manifest.fileId);
    });
    return ok(undefined);
  }

  /** The account key that the owner's signature has to hold with; null when nobody says whose file it is. */
  #ownerKeyOf({ fileId, ownerId }: Manifest, from: UserId, start: ShareOperation | undefined): Uint8Array | null {
    const known = from === ownerId ? this.#deps.accountKeyOf(from) : null;
    if (known !== null) return known;
    // Passed on by somebody else, or from a member of a group who is no contact.
    if (start === undefined) return null;
    const list = append(emptyList(fileId, ownerId, logCrypto), start, logCrypto);
    return list.ok ? start.actorKey : null;
  }

  seedersOf(fileId: FileId): UserId[] {
    const record = this.#table.get(fileId);
    if (record === null || record.sourcePath !== null) return [];
    // It is being downloaded: whether we still may is worth knowing from now on.
    this.#deps.shares.follow(fileId);
    const { ownerId } = record.offer.signed.manifest;
    const { account, shares, isTrusted } = this.#deps;
    const others = shares.members(fileId).filter((id) => id !== ownerId && id !== account.userId && isTrusted(id));
    return [ownerId, ...others];
  }

  sourceOf(fileId: FileId): { spec: FileSpec; source: ChunkSource } | null {
    const record = this.#table.get(fileId);
    if (record?.sourcePath == null) return null;
    // Somebody wants it again: perhaps it is back. Whether it is, the reading itself will show.
    if (!this.#sources.isThere(fileId)) void this.#sources.look(sourceOf(record, record.sourcePath));
    return { spec: specOf(record.offer), source: { kind: "file", path: record.sourcePath } };
  }

  mayFetch(peer: UserId, fileId: FileId): "serve" | "later" | "refuse" {
    return this.#deps.isTrusted(peer) ? this.#deps.shares.verdict(fileId, peer) : "refuse";
  }

  reportChanged(fileId: FileId): void {
    this.#sources.gone(fileId);
    // Once per run of the program and file: every seeder's session may notice it.
    if (this.#reported.has(fileId)) return;
    this.#reported.add(fileId);
    this.#notices.emit({
      level: "warning",
      type: "file_changed",
      message: "A file that you shared was changed or moved. Share it again to send it.",
      atMs: this.#deps.env.clock.now(),
    });
  }

  closed(fileId: FileId): Closing | null {
    return this.#deps.shares.closed(fileId);
  }

  async repaired({ chunks, withoutHashes }: RepairReport): Promise<void> {
    const { env, worker } = this.#deps;
    this.#notices.emit({
      level: "warning",
      type: "storage_repaired",
      message: `The store of unfinished downloads was damaged on the disk. ${chunks} of their parts could be kept; what was lost is fetched again. If it happens again, check the disk.`,
      atMs: env.clock.now(),
    });
    for (const fileId of withoutHashes) {
      const record = this.#owned.disposed ? null : this.#table.get(fileId);
      if (record?.sourcePath == null) continue;
      const { offer, sourcePath: path } = record;
      const hashed = await readAgain(worker, offer, { fileId, key: offer.key, path });
      if (hashed.ok && bytesEqual(hashed.value.root, offer.signed.manifest.root)) continue;
      if (!hashed.ok && hashed.error.type === "worker_ended") return;
      // Other leaves than those that the owner signed are of no use, and those are not to be had any more.
      if (hashed.ok) await worker.run("drop", { fileId, directory: null, what: "everything" }).result;
      if (!this.#owned.disposed) this.reportChanged(fileId);
    }
  }

  async #lookAtSources(): Promise<void> {
    for (const record of this.#table.all()) {
      if (this.#owned.disposed) return;
      if (record.sourcePath !== null) await this.#sources.look(sourceOf(record, record.sourcePath));
    }
  }

  #sourceChanged(fileId: FileId): void {
    if (this.#owned.disposed) return;
    try {
      this.#table.setUnregistered(fileId);
    } catch (error) {
      // The server names us as its source until the next start, no more than that.
      this.#deps.env.log.error("a shared file's absence was not written down", { reason: messageOf(error) });
    }
    this.#tell(fileId);
    this.#registry.registerAll();
  }

  #tell(fileId: FileId): void {
    const view = this.#owned.disposed ? null : this.view(fileId);
    if (view !== null) this.#changed.emit(view);
  }

  dispose(): void {
    this.#owned.dispose();
  }
}

const isSameManifest = (a: FileOffer, b: FileOffer): boolean =>
  bytesEqual(manifestSigningBytes(a.signed.manifest), manifestSigningBytes(b.signed.manifest));

const isSameSecret = (a: FileOffer, b: FileOffer): boolean =>
  bytesEqual(a.key, b.key) &&
  bytesEqual(a.sha256, b.sha256) &&
  a.folder?.listBytes === b.folder?.listBytes &&
  a.folder?.files === b.folder?.files;

const sourceOf = ({ offer }: FileRecord, path: string) => {
  const { fileId, sizeBytes } = offer.signed.manifest;
  return { fileId, path, sizeBytes, isFolder: offer.folder !== undefined };
};

const viewOf = ({ offer, sharedWith, version, access }: FileRecord, seeders: readonly string[]): FileView => {
  const { fileId, sizeBytes, chunkCount, ownerId } = offer.signed.manifest;
  return {
    fileId,
    name: offer.name,
    sizeBytes: sizeBytes - (offer.folder?.listBytes ?? 0),
    sha256: toHex(offer.sha256),
    ...(offer.folder === undefined ? {} : { folder: { files: offer.folder.files } }),
    chunkCount,
    ownerId,
    sharedWith: [...sharedWith],
    version,
    seeders: [...seeders],
    access: access === "granted" ? "granted" : "revoked",
    ...(access === "left" ? { hasLeft: true } : {}),
  };
};
