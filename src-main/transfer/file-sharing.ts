import { realpath, stat } from "node:fs/promises";
import { basename, resolve } from "node:path";
import * as v from "valibot";
import { type Bytes, bytesEqual, toBase64Url } from "#shared/base/bytes.ts";
import type { Disposable } from "#shared/base/disposable.ts";
import type { Env } from "#shared/base/env.ts";
import { type ChatId, chatIdOf, type FileId, FileIdSchema, type UserId } from "#shared/base/ids.ts";
import { SHARES_ACTIVE_MAX } from "#shared/base/limits.ts";
import { type AppError, err, fail, ok, type Result } from "#shared/base/result.ts";
import type { FileView, ShareProgressView } from "#shared/ipc/views.ts";
import type { ShareOperation, ShareTerms } from "#shared/shares/share-log.ts";
import { chunkBytesFor, type FileOffer, type Manifest, manifestSigningBytes } from "#shared/wire/manifest.ts";
import type { Account } from "../crypto/identity.ts";
import type { Shares } from "../shares/shares.ts";
import { reached } from "../steps.ts";
import type { Database } from "../store/database.ts";
import { isDiskFull } from "../store/errors.ts";
import type { FileRecord, FilesTable } from "../store/files.ts";
import type { ChunkWorker, RunningJob } from "./chunk-worker-client.ts";
import {
  type HashedFile,
  type JobName,
  type JobResult,
  type Jobs,
  type WorkError,
  workError,
} from "./chunk-worker-protocol.ts";
import { safeFileName } from "./file-name.ts";

export interface SharingDeps {
  readonly env: Env;
  readonly db: Database;
  readonly table: FilesTable;
  readonly account: Pick<Account, "userId" | "sign">;
  readonly worker: Pick<ChunkWorker, "run">;
  readonly shares: Pick<Shares, "start" | "members" | "list" | "closed" | "setTerms">;
  readonly isTrusted: (peer: UserId) => boolean;
  readonly maySend: (chatId: ChatId) => Result<unknown>;
  readonly membersOf: (chatId: ChatId) => readonly UserId[];
  readonly sendFile: (chatId: ChatId, offer: FileOffer, start: ShareOperation) => Result<unknown>;
  readonly hasCompleted: (fileId: FileId, userId: UserId) => boolean;
  readonly onOffered: (fileId: FileId, userId: UserId) => void;
  readonly onProgress: (progress: ShareProgressView) => void;
  /** The message that offers it is queued: only now the server may hear of it. */
  readonly announced: (fileId: FileId) => Result<FileView>;
  readonly get: (fileId: FileId) => Result<FileView>;
}

const FILE_ID_BYTES = 16;
const KEY_BYTES = 32;

/** Thrown inside the transaction to undo it; never leaves this file. */
class MessageRefused extends Error {
  override readonly name = "MessageRefused";
  readonly error: AppError;

  constructor(error: AppError) {
    super(error.message);
    this.error = error;
  }
}

const cancelled = { type: "cancelled", message: "The file is not sent." };

const closing = () => fail("closing", "Weir is closing. Share the file again after the next start.");

/**
 * Makes offers of own files: reads and hashes them, signs what they are, and queues the messages. What its calls promise is
 * said in files.ts.
 */
export class Sharing implements Disposable {
  readonly #deps: SharingDeps;
  #sharing = 0;
  /** How to stop those that are being read. */
  readonly #cancels = new Map<string, () => void>();
  #disposed = false;

  constructor(deps: SharingDeps) {
    this.#deps = deps;
  }

  async share(chatId: ChatId, path: string, terms: Partial<ShareTerms> = {}): Promise<Result<FileView>> {
    if (this.#sharing >= SHARES_ACTIVE_MAX)
      return fail("too_many_shares", "Many files are being prepared already. Wait until some of them are done.");
    this.#sharing += 1;
    try {
      return await this.#share(chatId, path, terms);
    } finally {
      this.#sharing -= 1;
    }
  }

  async #share(chatId: ChatId, path: string, terms: Partial<ShareTerms>): Promise<Result<FileView>> {
    const { worker, maySend } = this.#deps;
    const allowed = maySend(chatId);
    if (!allowed.ok) return allowed;
    // A link could be pointed elsewhere later. Whether the file can be read is for the worker to say.
    const sourcePath = await realpath(path).catch(() => resolve(path));
    const { fileId, key } = this.#freshSecret();
    const name = safeFileName(basename(path));
    const found = await stat(sourcePath).catch(() => null);
    const isFolder = found?.isDirectory() === true;
    const progressOf = (sizeBytes: number) => (bytesHashed: number) =>
      this.#deps.onProgress({ chatId, fileId, name, sizeBytes, bytesHashed });
    progressOf(found?.isFile() === true ? found.size : 0)(0);
    const input = { fileId, key, path: sourcePath };
    const hashed = await this.#cancellable(fileId, async (stopBy) => {
      if (!isFolder) return stopBy(worker.run("hashFile", input, progressOf(found?.size ?? 0)));
      const measured = await stopBy(worker.run("measureFolder", { path: sourcePath }));
      return measured.ok ? stopBy(worker.run("hashFolder", input, progressOf(measured.value))) : measured;
    });
    if (!hashed.ok) {
      // It was read to its end before it could be stopped.
      if (hashed.error.type === "cancelled") return this.#giveUp(fileId, cancelled);
      return err({ type: hashed.error.type, message: hashed.error.message });
    }
    if (this.#disposed) return closing();
    reached("announcing", fileId);
    const offer = this.#offerOf({ fileId, key, name }, hashed.value);
    return this.#publish([chatId], this.#deps.membersOf(chatId), offer, sourcePath, terms);
  }

  async rekey(fileId: FileId): Promise<Result<FileView>> {
    const { account, shares, hasCompleted, isTrusted } = this.#deps;
    const record = this.#deps.table.get(fileId);
    if (record?.sourcePath == null) return fail("unknown_file", "Only a file of your own can be given another key.");
    if (shares.closed(fileId) !== null) return fail("share_not_allowed", "This file is not given out any more.");
    const members = shares
      .members(fileId)
      .filter((userId) => userId !== account.userId && !hasCompleted(fileId, userId));
    // Whoever has the file already needs no other key.
    if (members.length === 0) return this.#deps.get(fileId);
    if (!members.every(isTrusted))
      return fail(
        "unknown_contact",
        "Members have given this file to people whom you are not in contact with, so you cannot send them another key.",
      );
    const { sourcePath, offer } = record;
    const fresh = this.#freshSecret();
    const hashed = await readAgain(this.#deps.worker, offer, { ...fresh, path: sourcePath });
    if (!hashed.ok) return err({ type: hashed.error.type, message: hashed.error.message });
    if (this.#disposed) return closing();
    const next: FileOffer = { ...this.#offerOf({ ...fresh, name: offer.name }, hashed.value), replaces: fileId };
    if (!isSamePlaintext(offer, next))
      return this.#giveUp(next.signed.manifest.fileId, {
        type: "file_changed",
        message: "The file was changed since you shared it. Share it again instead.",
      });
    const { terms } = shares.list(fileId);
    const published = this.#publish(members.map(chatIdOf), members, next, sourcePath, terms);
    // From now on the old key is good for nothing that is sent: whoever may still have the file gets it under the new one.
    await shares.setTerms(fileId, { expiresAtMs: this.#deps.env.clock.now() });
    return published;
  }

  cancel(fileId: string): Result<{ fileId: string }> {
    const cancel = this.#cancels.get(fileId);
    if (cancel === undefined) return fail("unknown_file", "This file is not being prepared any more.");
    cancel();
    return ok({ fileId });
  }

  #freshSecret(): { fileId: FileId; key: Bytes } {
    const { random } = this.#deps.env;
    const fileId = v.parse(FileIdSchema, toBase64Url(random.bytes(FILE_ID_BYTES)));
    return { fileId, key: random.bytes(KEY_BYTES) };
  }

  #offerOf({ fileId, key, name }: { fileId: FileId; key: Bytes; name: string }, hashed: HashedFile): FileOffer {
    const { account, env } = this.#deps;
    const { sizeBytes, root, sha256, folder } = hashed;
    const chunkBytes = chunkBytesFor(sizeBytes);
    const manifest: Manifest = {
      ...{ fileId, ownerId: account.userId, sizeBytes, chunkBytes, chunkCount: Math.ceil(sizeBytes / chunkBytes) },
      ...{ root, createdAtMs: env.clock.now() },
    };
    const signed = { manifest, signature: account.sign(manifestSigningBytes(manifest)) };
    return { signed, name, key, sha256, ...(folder === undefined ? {} : { folder }) };
  }

  /** Runs jobs one after the other, each until it is done or {@link cancel} stops it. */
  async #cancellable<T>(
    fileId: FileId,
    body: (
      stopBy: <Name extends JobName>(job: RunningJob<Name>) => Promise<JobResult<Name>>,
    ) => Promise<Result<T, WorkError>>,
  ): Promise<Result<T, WorkError>> {
    let isCancelled = false;
    let job: Pick<RunningJob<JobName>, "cancel"> | null = null;
    this.#cancels.set(fileId, () => {
      isCancelled = true;
      job?.cancel();
    });
    try {
      const result = await body(async (next) => {
        job = next;
        if (isCancelled) next.cancel();
        return next.result;
      });
      return isCancelled ? err(workError("cancelled", cancelled.message)) : result;
    } finally {
      this.#cancels.delete(fileId);
    }
  }

  /** Record and message belong together: without the one the other is nothing. */
  async #publish(
    chatIds: readonly ChatId[],
    members: readonly UserId[],
    offer: FileOffer,
    sourcePath: string,
    terms: Partial<ShareTerms>,
  ): Promise<Result<FileView>> {
    const { fileId } = offer.signed.manifest;
    const record = { offer, sharedWith: members, version: 1, sourcePath, registered: false };
    const refusal = this.#store(record, () => {
      const start = this.#deps.shares.start(fileId, members, terms);
      const sent = chatIds.map((chatId) => this.#deps.sendFile(chatId, offer, start));
      return sent.find(({ ok }) => !ok) ?? ok(undefined);
    });
    if (refusal !== null) return this.#giveUp(fileId, refusal);
    reached("announced", fileId);
    for (const userId of members) this.#deps.onOffered(fileId, userId);
    return this.#deps.announced(fileId);
  }

  /** The record and what `send` stores are committed together, or neither is. */
  #store(record: Omit<FileRecord, "access">, send: () => Result<unknown>): AppError | null {
    try {
      this.#deps.db.transaction(() => {
        this.#deps.table.insert(record);
        const sent = send();
        if (!sent.ok) throw new MessageRefused(sent.error);
      });
      return null;
    } catch (error) {
      if (error instanceof MessageRefused) return error.error;
      if (!isDiskFull(error)) throw error;
      return { type: "disk_full", message: "The disk with Weir's data is full. Free some space, then share it again." };
    }
  }

  async #giveUp<E>(fileId: FileId, error: E): Promise<{ ok: false; error: E }> {
    await this.#deps.worker.run("drop", { fileId, directory: null, what: "everything" }).result;
    return err(error);
  }

  /** What is being read is not offered any more. */
  dispose(): void {
    this.#disposed = true;
  }
}

/** Hashes a file or folder that was shared before. */
export const readAgain = (
  worker: Pick<ChunkWorker, "run">,
  { folder }: FileOffer,
  input: Jobs["hashFile"]["input"],
): Promise<Result<HashedFile, WorkError>> =>
  folder === undefined ? worker.run("hashFile", input).result : worker.run("hashFolder", input).result;

export const isSamePlaintext = (a: FileOffer, b: FileOffer): boolean =>
  a.signed.manifest.ownerId === b.signed.manifest.ownerId &&
  a.signed.manifest.sizeBytes === b.signed.manifest.sizeBytes &&
  bytesEqual(a.sha256, b.sha256) &&
  a.folder?.listBytes === b.folder?.listBytes;
