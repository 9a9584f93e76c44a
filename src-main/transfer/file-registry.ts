import * as v from "valibot";
import { bytesEqual } from "#shared/base/bytes.ts";
import { type Disposable, DisposableStore } from "#shared/base/disposable.ts";
import type { Env } from "#shared/base/env.ts";
import type { FileId } from "#shared/base/ids.ts";
import { messageOf } from "#shared/base/result.ts";
import type { RequestOutput } from "#shared/rendezvous/protocol.ts";
import type { FileOffer, Manifest } from "#shared/wire/manifest.ts";
import type { Shares } from "../shares/shares.ts";
import type { Signaling } from "../signaling/signaling.ts";
import { reached } from "../steps.ts";
import type { Database } from "../store/database.ts";
import type { FileRecord, FilesTable } from "../store/files.ts";
import { SettingsTable } from "../store/settings.ts";

export interface FileRegistryDeps {
  readonly env: Env;
  readonly db: Database;
  readonly table: FilesTable;
  readonly signaling: Pick<Signaling, "request" | "state" | "serverId" | "onConnected">;
  readonly shares: Pick<Shares, "operations" | "registered">;
  /** Whether an own file is where it was shared from. */
  readonly isThere: (fileId: FileId) => boolean;
  /** The server has the record of an own file, and its list. */
  readonly onRegistered: (fileId: FileId) => void;
  /** The server names others as those who hold a file of somebody else. */
  readonly onHolders: (fileId: FileId) => void;
  /** The server has another record than the one that its owner signed for us. Told once. */
  readonly onMismatch: (offer: FileOffer) => void;
}

/** Where the id of the server is kept that `registered` is about. */
const SERVER_KEY = "filesServer";
/** Answers of the server that a repetition will not change. */
const REFUSALS: readonly string[] = [
  ...["bad_request", "bad_signature", "conflict", "not_owner"],
  ...["share_conflict", "share_forged", "share_not_allowed", "share_malformed"],
];

type Registration =
  | { readonly kind: "registered"; readonly holder: boolean }
  /** The server may have it another time. */
  | { readonly kind: "later" }
  | { readonly kind: "refused"; readonly error: { type: string; message: string } };

/**
 * What the server knows of files: it is given the records of our own and told what we hold of others', again and again until
 * it has them, and after a change of the server; and it is asked who holds the files of others.
 */
export class FileRegistry implements Disposable {
  readonly #deps: FileRegistryDeps;
  readonly #settings: SettingsTable;
  readonly #owned = new DisposableStore();
  /** Who holds all of a file of somebody else, as far as the server was asked. */
  readonly #holders = new Map<string, readonly string[]>();
  /** Files of which the server has another record than the one that their owner signed for us. */
  readonly #mismatched = new Set<string>();
  /** What we hold of files of others. */
  readonly #held = new Map<FileId, number>();
  #pass: Promise<void> = Promise.resolve();
  #nextPass: Promise<void> | null = null;

  constructor(deps: FileRegistryDeps) {
    this.#deps = deps;
    this.#settings = new SettingsTable(deps.db);
    this.#owned.add(
      deps.signaling.onConnected(() => {
        this.#followServer();
        this.registerAll();
        for (const [fileId, chunks] of this.#held) void this.#announceHeld(fileId, chunks);
      }),
    );
  }

  /** Another server knows none of our files, and what the old one said about those of others is of no use any more. */
  #followServer(): void {
    const { serverId } = this.#deps.signaling;
    if (serverId === null || this.#settings.get(SERVER_KEY, v.string()) === serverId) return;
    this.#deps.db.transaction(() => {
      this.#deps.table.setAllUnregistered();
      this.#settings.set(SERVER_KEY, serverId);
    });
    this.#holders.clear();
  }

  async #register({ offer }: FileRecord): Promise<Registration> {
    const { signaling, shares } = this.#deps;
    const { manifest, signature } = offer.signed;
    const { fileId, chunkCount } = manifest;
    let operations = shares.operations(fileId, 1);
    reached("registering", fileId);
    let given = await signaling.request("files.register", { record: { ...manifest, signature }, operations });
    for (let last = operations.at(-1); given.ok && last !== undefined; last = operations.at(-1)) {
      operations = shares.operations(fileId, last.version + 1);
      if (operations.length > 0) given = await signaling.request("files.operate", { fileId, operations });
    }
    const holder = this.#deps.isThere(fileId);
    const chunksHeld = holder ? chunkCount : 0;
    const answer = given.ok
      ? await signaling.request("files.announce", { fileId, complete: holder, chunksHeld })
      : given;
    // It may have come or gone while the server answered.
    if (holder !== this.#deps.isThere(fileId)) return { kind: "later" };
    if (answer.ok) {
      reached("registered", fileId);
      return { kind: "registered", holder };
    }
    this.#deps.env.log.warn("a file was not registered", { type: answer.error.type });
    return REFUSALS.includes(answer.error.type) ? { kind: "refused", error: answer.error } : { kind: "later" };
  }

  /** A pass reads its list at its start: what comes later needs the next pass, and one that waits is enough. */
  registerAll(): void {
    if (this.#nextPass !== null) return;
    this.#nextPass = this.#pass.then(() => {
      this.#nextPass = null;
      this.#pass = this.#registerEach().catch((error: unknown) =>
        this.#deps.env.log.error("files were not registered", { reason: messageOf(error) }),
      );
      return this.#pass;
    });
  }

  async #registerEach(): Promise<void> {
    for (const record of this.#deps.table.unregistered()) {
      if (this.#owned.disposed || this.#deps.signaling.state.state !== "connected") return;
      const answer = await this.#register(record);
      if (this.#owned.disposed) return;
      const { fileId } = record.offer.signed.manifest;
      if (answer.kind === "registered") this.#deps.table.setRegistered(fileId, answer.holder);
      // A refusal will not change either; without the record the file can still be sent directly.
      else if (answer.kind === "refused") this.#deps.table.setRegistered(fileId, true);
      if (answer.kind !== "registered") continue;
      this.#deps.shares.registered(fileId);
      this.#deps.onRegistered(fileId);
    }
  }

  /** The server has to be given the record of this file of ours again. */
  registerAgain(fileId: FileId): void {
    this.#deps.table.setUnregistered(fileId);
    this.registerAll();
  }

  /** Whom the server names as holding all of a file of somebody else, or else its owner. */
  holdersOf({ offer }: FileRecord): readonly string[] {
    const { fileId, ownerId } = offer.signed.manifest;
    return this.#holders.get(fileId) ?? [ownerId];
  }

  /** Whether the server's record of it is another one than its owner's, as far as it was asked. */
  isMismatched(fileId: string): boolean {
    return this.#mismatched.has(fileId);
  }

  /** Asks who holds a file of somebody else, and what it is. Without an answer everything stays as it is. */
  async refresh(fileId: string): Promise<void> {
    if (this.#owned.disposed) return;
    const record = this.#deps.table.get(fileId);
    const { signaling } = this.#deps;
    if (record === null || record.sourcePath !== null || signaling.state.state !== "connected") return;
    const { fileId: id } = record.offer.signed.manifest;
    const answer = await signaling.request("files.get", { fileId: id });
    if (!answer.ok || this.#owned.disposed) return;
    this.#compare(record, answer.value.record);
    const before = this.holdersOf(record);
    const holders = answer.value.seeders.filter(({ complete }) => complete).map(({ userId }) => userId);
    this.#holders.set(id, holders);
    if (before.join() !== holders.join()) this.#deps.onHolders(id);
  }

  #compare({ offer }: FileRecord, record: RequestOutput<"files.get">["record"]): void {
    const { manifest } = offer.signed;
    const { fileId } = manifest;
    if (isSameRecord(manifest, record)) {
      this.#mismatched.delete(fileId);
      return;
    }
    if (this.#mismatched.has(fileId)) return;
    this.#mismatched.add(fileId);
    this.#deps.onMismatch(offer);
  }

  /** Tells the server what we hold of a file of somebody else: so far only for others to see. */
  holds(fileId: FileId, chunks: number): void {
    this.#held.set(fileId, chunks);
    void this.#announceHeld(fileId, chunks);
  }

  /** Nothing depends on it: what fails is told again with the next connection. */
  async #announceHeld(fileId: FileId, chunksHeld: number): Promise<void> {
    const { signaling } = this.#deps;
    const record = this.#owned.disposed ? null : this.#deps.table.get(fileId);
    if (record === null || record.sourcePath !== null || signaling.state.state !== "connected") return;
    const complete = chunksHeld === record.offer.signed.manifest.chunkCount;
    await signaling.request("files.announce", { fileId, complete, chunksHeld });
  }

  dispose(): void {
    this.#owned.dispose();
  }
}

const isSameRecord = (manifest: Manifest, record: RequestOutput<"files.get">["record"]): boolean =>
  record.fileId === manifest.fileId &&
  record.ownerId === manifest.ownerId &&
  record.sizeBytes === manifest.sizeBytes &&
  record.chunkCount === manifest.chunkCount &&
  bytesEqual(record.root, manifest.root);
