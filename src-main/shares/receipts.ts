import { bytesEqual } from "#shared/base/bytes.ts";
import { type Disposable, DisposableStore } from "#shared/base/disposable.ts";
import { Emitter, type Event } from "#shared/base/emitter.ts";
import type { Env } from "#shared/base/env.ts";
import type { FileId, UserId } from "#shared/base/ids.ts";
import { SHARE_RECEIPTS_MAX } from "#shared/base/limits.ts";
import { MachineRunner } from "#shared/base/machine.ts";
import { messageOf } from "#shared/base/result.ts";
import {
  bundleSigningBytes,
  checkReceipt,
  encodeBundle,
  type Receipt,
  type ReceiptKind,
  receiptSigningBytes,
} from "#shared/shares/receipt.ts";
import type { ShareOperation } from "#shared/shares/share-log.ts";
import type { ContentDraft } from "#shared/wire/content.ts";
import type { Account } from "../crypto/identity.ts";
import { logCrypto } from "../crypto/signed-log.ts";
import type { Signaling } from "../signaling/signaling.ts";
import type { Database } from "../store/database.ts";
import { FilesTable } from "../store/files.ts";
import { ReceiptsTable } from "../store/receipts.ts";
import {
  openBook,
  type ReceiptBook,
  type ReceiptEffect,
  type ReceiptEvent,
  receiptKey,
  receiptStep,
} from "./receipts-machine.ts";

export interface ReceiptsDeps {
  readonly env: Env;
  readonly db: Database;
  readonly account: Pick<Account, "userId" | "accountKey" | "sign">;
  readonly signaling: Pick<
    Signaling,
    "request" | "state" | "serverId" | "onConnected" | "onStateChanged" | "onReceiptAdded"
  >;
  /** Sends something that is no chat message. */
  readonly post: (peer: UserId, draft: ContentDraft) => void;
  readonly isContact: (peer: UserId) => boolean;
  readonly nameOf: (userId: UserId) => string | null;
  /** The whole share list of a file. */
  readonly operations: (fileId: FileId) => ShareOperation[];
}

/**
 * Signed receipts of files: ours are made here and given to the server, and to the owner directly; those of others are
 * checked, kept and shown. Their rules are in src-shared/shares/receipt, how they are exchanged in receipts-machine.ts.
 */
export interface Receipts extends Disposable {
  /** More is known of a file, or whether that is all has changed. */
  readonly onChanged: Event<FileId>;
  /** The server has the record of this file of ours now, so it takes receipts of it. */
  registered(fileId: FileId): void;
  /** We sent the file's key to that person. */
  offered(fileId: FileId, subject: UserId): void;
  /** We have the file. */
  completed(fileId: FileId): void;
  /** A contact's word that they have the file; whoever else's it carries is not asked. */
  received(from: UserId, receipt: Receipt): void;
  of(fileId: FileId): Receipt[];
  /** Who says to have the file. */
  completedBy(fileId: FileId): ReadonlySet<UserId>;
  /** Everything that the server has was fetched over this connection. */
  isCurrent(fileId: FileId): boolean;
  /** Asks the server for what is new. Resolves when that is here, or was not to be had. */
  refresh(fileId: FileId): Promise<void>;
  /** The file that proves what is known; null for an unknown file. */
  exported(fileId: FileId): { fileName: string; json: string } | null;
}

/** Answers of the server that a repetition will not change. */
const FINAL: readonly string[] = [
  "receipt_forged",
  "receipt_malformed",
  "receipt_unrelated",
  "share_full",
  "bad_request",
];

type Runner = MachineRunner<ReceiptBook, ReceiptEvent, ReceiptEffect>;

export const createReceipts = (deps: ReceiptsDeps): Receipts => new FileReceipts(deps);

class FileReceipts implements Receipts {
  readonly #deps: ReceiptsDeps;
  readonly #table: ReceiptsTable;
  readonly #files: FilesTable;
  readonly #owned = new DisposableStore();
  readonly #changed: Emitter<FileId>;
  readonly #books = new Map<FileId, Runner>();
  readonly #waiting = new Map<FileId, (() => void)[]>();
  /** Counts connections: an answer to a request of an older one is of no use. */
  #connection = 0;

  constructor(deps: ReceiptsDeps) {
    this.#deps = deps;
    this.#table = new ReceiptsTable(deps.db);
    this.#files = new FilesTable(deps.db);
    this.#changed = this.#owned.add(
      new Emitter<FileId>((error) => deps.env.log.error("a listener of receipts failed", { reason: messageOf(error) })),
    );
    const { signaling } = deps;
    this.#owned.add(signaling.onConnected(() => this.#connected()));
    this.#owned.add(
      signaling.onStateChanged(({ state }) => {
        if (state !== "connected") this.#disconnected();
      }),
    );
    this.#owned.add(
      signaling.onReceiptAdded(({ fileId }) => {
        if (this.#files.get(fileId) !== null) void this.refresh(fileId);
      }),
    );
  }

  get onChanged(): Event<FileId> {
    return this.#changed.event;
  }

  registered(fileId: FileId): void {
    const book = this.#books.get(fileId);
    if (book !== undefined && this.#deps.signaling.state.state === "connected") this.#connect(fileId, book);
  }

  offered(fileId: FileId, subject: UserId): void {
    this.#make(fileId, "offered", subject);
  }

  completed(fileId: FileId): void {
    const receipt = this.#make(fileId, "completed", this.#deps.account.userId);
    const ownerId = this.#files.get(fileId)?.offer.signed.manifest.ownerId;
    // The server could keep it to itself, and there may be none.
    if (receipt !== null && ownerId !== undefined && this.#deps.isContact(ownerId))
      this.#deps.post(ownerId, { kind: "fileReceipt", receipt });
  }

  #make(fileId: FileId, kind: ReceiptKind, subject: UserId): Receipt | null {
    const { account, env } = this.#deps;
    const record = this.#files.get(fileId);
    if (record === null || record.access !== "granted" || this.#table.has({ fileId, kind, subject })) return null;
    const { manifest } = record.offer.signed;
    // An owner has the file anyway.
    if (subject === manifest.ownerId) return null;
    const unsigned = {
      ...{ fileId, kind, subject, root: manifest.root, atMs: env.clock.now() },
      ...{ actor: account.userId, actorKey: account.accountKey },
    };
    const receipt: Receipt = { ...unsigned, signature: account.sign(receiptSigningBytes(unsigned)) };
    this.#dispatch(fileId, { type: "made", receipt });
    return receipt;
  }

  received(from: UserId, receipt: Receipt): void {
    queueMicrotask(() => {
      if (this.#owned.disposed || receipt.actor !== from || !this.#isGenuine(receipt.fileId, receipt)) return;
      this.#dispatch(receipt.fileId, { type: "arrived", receipt });
    });
  }

  of(fileId: FileId): Receipt[] {
    return [...this.#book(fileId).state.known.values()];
  }

  completedBy(fileId: FileId): ReadonlySet<UserId> {
    return new Set(this.of(fileId).flatMap(({ kind, subject }) => (kind === "completed" ? [subject] : [])));
  }

  isCurrent(fileId: FileId): boolean {
    return this.#book(fileId).state.current;
  }

  refresh(fileId: FileId): Promise<void> {
    this.#dispatch(fileId, { type: "wanted" });
    if (this.#owned.disposed || this.#book(fileId).state.fetching === "no") return Promise.resolve();
    return new Promise((resolve) => {
      this.#waiting.set(fileId, [...(this.#waiting.get(fileId) ?? []), resolve]);
    });
  }

  /** Whoever waits for a fetch that is over. */
  #wake(fileId: FileId): void {
    if (!this.#owned.disposed && this.#book(fileId).state.fetching !== "no") return;
    for (const resolve of this.#waiting.get(fileId) ?? []) resolve();
    this.#waiting.delete(fileId);
  }

  exported(fileId: FileId): { fileName: string; json: string } | null {
    const { account, env, nameOf, operations } = this.#deps;
    const record = this.#files.get(fileId);
    if (record === null) return null;
    const log = operations(fileId);
    const named = [...new Set(log.flatMap(({ actor, userIds }) => [actor, ...userIds]))];
    const unsigned = {
      ...{ weirReceipts: 1 as const, fileName: record.offer.name, file: record.offer.signed },
      people: named.slice(0, SHARE_RECEIPTS_MAX).map((userId): [UserId, string] => [userId, nameOf(userId) ?? ""]),
      ...{ operations: log, receipts: this.#related(fileId, log), exportedAtMs: env.clock.now() },
      ...{ exporter: account.userId, exporterKey: account.accountKey },
    };
    const json = Buffer.from(encodeBundle({ ...unsigned, signature: account.sign(bundleSigningBytes(unsigned)) }));
    return { fileName: `${record.offer.name}.receipts.json`, json: json.toString("utf8") };
  }

  /** Receipts of people whom the list named at some time; a server could hand out those of others. */
  #related(fileId: FileId, operations: readonly ShareOperation[]): Receipt[] {
    const everNamed = new Set<string>(operations.flatMap(({ actor, userIds }) => [actor, ...userIds]));
    return this.of(fileId).filter(({ actor, subject }) => everNamed.has(actor) && everNamed.has(subject));
  }

  // ---- Machines ------------------------------------------------------------------------------------------------------

  #book(fileId: FileId): Runner {
    const known = this.#books.get(fileId);
    if (known !== undefined) return known;
    const book: Runner = new MachineRunner(openBook(this.#table.of(fileId)), receiptStep, (effect) =>
      this.#run(fileId, effect),
    );
    this.#books.set(fileId, book);
    if (this.#deps.signaling.state.state === "connected") this.#connect(fileId, book);
    return book;
  }

  #dispatch(fileId: FileId, event: ReceiptEvent): void {
    if (this.#owned.disposed) return;
    this.#book(fileId).dispatch(event);
    this.#wake(fileId);
  }

  #connect(fileId: FileId, book: Runner): void {
    const { account, signaling } = this.#deps;
    // Of a file that it does not know yet the server takes none.
    if (this.#files.get(fileId)?.registered !== true) return;
    const unsent = this.#table.unsent(fileId, account.userId, signaling.serverId ?? "");
    book.dispatch({ type: "connected", unsent: unsent.map(receiptKey) });
  }

  #connected(): void {
    const { account, signaling } = this.#deps;
    this.#connection += 1;
    for (const [fileId, book] of this.#books) this.#connect(fileId, book);
    for (const fileId of this.#table.filesWithUnsent(account.userId, signaling.serverId ?? "")) this.#book(fileId);
  }

  #disconnected(): void {
    this.#connection += 1;
    for (const [fileId, book] of this.#books)
      if (book.state.connected) this.#dispatch(fileId, { type: "disconnected" });
  }

  #run(fileId: FileId, effect: ReceiptEffect): void {
    switch (effect.type) {
      case "fetch":
        void this.#fetch(fileId, effect.after);
        return;
      case "send":
        void this.#send(fileId, effect.receipt);
        return;
      case "store":
        this.#table.add(effect.receipts);
        return;
      case "settled":
        this.#table.setSent(effect.receipt, this.#deps.signaling.serverId ?? "");
        return;
      default:
        // Never in the middle of a step.
        queueMicrotask(() => {
          if (!this.#owned.disposed) this.#changed.emit(fileId);
        });
    }
  }

  async #fetch(fileId: FileId, after: number): Promise<void> {
    const connection = this.#connection;
    const answer = await this.#deps.signaling.request("files.receipts", { fileId, after });
    if (this.#owned.disposed || connection !== this.#connection) return;
    if (!answer.ok) return this.#dispatch(fileId, { type: "fetchFailed" });
    const { receipts, total } = answer.value;
    const genuine = receipts.filter((receipt) => this.#isGenuine(fileId, receipt));
    if (genuine.length < receipts.length) this.#deps.env.log.warn("the server gave receipts that do not hold");
    this.#dispatch(fileId, { type: "fetched", receipts: genuine, read: after + receipts.length, total });
  }

  #isGenuine(fileId: FileId, receipt: Receipt): boolean {
    const manifest = this.#files.get(fileId)?.offer.signed.manifest;
    if (manifest === undefined || receipt.fileId !== fileId || receipt.subject === manifest.ownerId) return false;
    if (!bytesEqual(receipt.root, manifest.root)) return false;
    return this.#book(fileId).state.known.size < SHARE_RECEIPTS_MAX && checkReceipt(receipt, logCrypto).ok;
  }

  async #send(fileId: FileId, receipt: Receipt): Promise<void> {
    const connection = this.#connection;
    const answer = await this.#deps.signaling.request("files.receipt", { receipt });
    if (this.#owned.disposed || connection !== this.#connection) return;
    const key = receiptKey(receipt);
    if (answer.ok) this.#dispatch(fileId, { type: "sent", key });
    else this.#dispatch(fileId, { type: "sendFailed", key, final: FINAL.includes(answer.error.type) });
  }

  dispose(): void {
    this.#owned.dispose();
    for (const fileId of [...this.#waiting.keys()]) this.#wake(fileId);
  }
}
