import type { Bytes } from "#shared/base/bytes.ts";
import { type Disposable, DisposableStore } from "#shared/base/disposable.ts";
import { Emitter, type Event } from "#shared/base/emitter.ts";
import type { Env } from "#shared/base/env.ts";
import type { FileId, UserId } from "#shared/base/ids.ts";
import {
  SHARE_EXPIRY_CHECK_MS,
  SHARE_NOTICE_DELAY_MS,
  SHARE_NOTICE_FILES_MAX,
  SHARE_OPERATIONS_MAX,
  SHARE_OPERATIONS_PAGE,
  SHARE_RETRY_MS,
} from "#shared/base/limits.ts";
import { MachineRunner } from "#shared/base/machine.ts";
import { type AppError, err, fail, messageOf, ok, type Result } from "#shared/base/result.ts";
import type { NoticeView } from "#shared/ipc/views.ts";
import {
  append,
  type Closing,
  closingOf,
  concerns,
  defaultTerms,
  draftFor,
  emptyList,
  isMember,
  operationHash,
  pageOf,
  type ShareDraft,
  type ShareList,
  type ShareOperation,
  type ShareTerms,
  type ShareWish,
} from "#shared/shares/share-log.ts";
import type { ContentDraft, ContentOf } from "#shared/wire/content.ts";
import type { FileOffer } from "#shared/wire/manifest.ts";
import type { Account } from "../crypto/identity.ts";
import { logCrypto, signShareOperation } from "../crypto/signed-log.ts";
import type { Signaling } from "../signaling/signaling.ts";
import type { Database } from "../store/database.ts";
import { type FileRecord, FilesTable } from "../store/files.ts";
import { ReceiptsTable } from "../store/receipts.ts";
import { SharesTable } from "../store/shares.ts";
import { KeyRequests } from "./key-requests.ts";
import {
  type Downloads,
  limitsOf,
  type Replica,
  type ReplicaEffect,
  type ReplicaEvent,
  type ReportType,
  replicaStep,
  startReplica,
  type TimedReplicaEvent,
  type Verdict,
  verdictOf,
} from "./share-machine.ts";

export interface SharesDeps {
  readonly env: Env;
  readonly db: Database;
  readonly account: Pick<Account, "userId" | "accountKey" | "sign">;
  readonly signaling: Pick<
    Signaling,
    "request" | "state" | "serverTimeMs" | "onConnected" | "onStateChanged" | "onShareChanged"
  >;
  /** Who has signed to have the file; asked where the number of downloads is limited. */
  readonly downloads: (fileId: FileId) => Downloads;
  /** An accepted contact, or somebody in a group with us: somebody who can be sent a message. */
  readonly isContact: (peer: UserId) => boolean;
  readonly nameOf: (userId: UserId) => string | null;
  /** Sends something that is no chat message. */
  readonly post: (peer: UserId, draft: ContentDraft) => void;
  /** Queues the chat message that carries the file's key. */
  readonly sendKey: (peer: UserId, offer: FileOffer, start: ShareOperation) => Result<unknown>;
  /** The file's key was sent to that person, who is in its list. */
  readonly onOffered: (fileId: FileId, userId: UserId) => void;
  /** The server does not know this file of ours (any more). */
  readonly registerAgain: (fileId: FileId) => void;
}

/** Why nothing of a file may be had any more. */
export interface AccessLost {
  readonly fileId: FileId;
  readonly why: "revoked" | "left" | "withdrawn";
}

/**
 * Who may have which file. The lists themselves are in src-shared/shares, how one profile follows them is in
 * share-machine.ts; here they meet the database, the server and the person.
 */
export interface Shares extends Disposable {
  /** Who may be served this file may have changed; also with every connection to the server that comes or goes. */
  readonly onChanged: Event<FileId>;
  /** The owner's signature, or our own, ended our access. The key is deleted already. */
  readonly onAccessLost: Event<AccessLost>;
  readonly onNotice: Event<NoticeView>;

  /** The first operation of an own file, which is kept inside the caller's transaction together with the file. */
  start(fileId: FileId, members: readonly UserId[], terms?: Partial<ShareTerms>): ShareOperation;
  /** Everybody who may have the file by the newest list that we know, its owner first. Empty for an unknown file. */
  members(fileId: FileId): UserId[];
  /** Whether chunks of the file may be sent to that person at this moment. */
  mayServe(fileId: FileId, userId: UserId): boolean;
  /** The same with a third answer: `later`, when the list has to be fetched before it can be told. */
  verdict(fileId: FileId, userId: UserId): Verdict;
  /** Members whose access we are taking back; the server may not know it yet. */
  revoking(fileId: FileId): UserId[];
  /** The list is kept up with from now on: the file is being downloaded or served. */
  follow(fileId: FileId): void;
  list(fileId: FileId): ShareList;
  /** From `version` on, as many as fit one message. */
  operations(fileId: FileId, version: number): ShareOperation[];
  /** All of them. */
  log(fileId: FileId): ShareOperation[];
  /** The server has the file's record. */
  registered(fileId: FileId): void;

  /**
   * Errors: `unknown_file`, `unknown_contact`, `share_not_allowed`, `share_full`, `access_revoked`, and
   * `server_unreachable`: nothing was changed then.
   */
  grant(fileId: FileId, userIds: readonly UserId[]): Promise<Result<void>>;
  /** Takes effect on this device at once; without a server the others hear of it when there is one again. */
  revoke(fileId: FileId, userIds: readonly UserId[]): Promise<Result<void>>;
  leave(fileId: FileId): Promise<Result<void>>;
  /** The owner's rules; what is left out stays as it is. */
  setTerms(
    fileId: FileId,
    change: { readonly [Term in keyof ShareTerms]?: ShareTerms[Term] | undefined },
  ): Promise<Result<void>>;
  /** The owner takes the file back from everybody, for good. On this device at once. */
  withdraw(fileId: FileId): Promise<Result<void>>;
  /**
   * Why nobody but its owner gets the file any more; null while it is given out. By this computer's clock or the server's,
   * whichever is ahead: a slow clock lets nobody have it longer, and a server can end a file's time but not extend it.
   */
  closed(fileId: FileId): Closing | null;
  /** Who has signed to have a file has changed. */
  recounted(fileId: FileId): void;
  /** What a contact says about lists. Inside the transaction that takes it in; acted on afterwards. */
  received(from: UserId, content: ContentOf<"shareNotice" | "keyRequest">): void;
}

type Runner = MachineRunner<Replica, TimedReplicaEvent, ReplicaEffect>;

interface Followed {
  readonly runner: Runner;
  /** Counts connections: an answer to a request of an older one is of no use. */
  connection: number;
  retry: Disposable | null;
}

const REPORTS: Record<ReportType, string> = {
  share_forked:
    "There are two different lists of who may have a file. Somebody, or the server, is not honest. Only its owner serves it now.",
  share_withheld:
    "Somebody knows of a newer list of who may have a file than the server gives. The server may be holding changes back.",
  share_forged: "The server gave a change of who may have a file that nobody signed. It was ignored.",
  share_rolled_back: "The server has forgotten changes of who may have a file. They were given to it again.",
};

const unreachable = () =>
  fail("server_unreachable", "The server cannot be reached, so nobody can be added now. Try again when it is back.");

const NOT_COUNTED = { people: 0, hasIt: false };

export const createShares = (deps: SharesDeps): Shares => new ShareLists(deps);

class ShareLists implements Shares {
  readonly #deps: SharesDeps;
  readonly #table: SharesTable;
  readonly #receipts: ReceiptsTable;
  readonly #files: FilesTable;
  readonly #owned = new DisposableStore();
  readonly #changed: Emitter<FileId>;
  readonly #accessLost: Emitter<AccessLost>;
  readonly #notices: Emitter<NoticeView>;
  readonly #followed = new Map<FileId, Followed>();
  readonly #waiting = new Map<number, (result: Result<void>) => void>();
  readonly #untold = new Set<FileId>();
  readonly #keys: KeyRequests;
  #noticeTimer: Disposable | null = null;
  #expiryTimer: Disposable | null = null;
  /** Files that expired by then have been told of. */
  #expiredUntil = 0;
  readonly #step = replicaStep(logCrypto);
  /** Wishes that are not kept over a restart have numbers below 0. */
  #passing = 0;

  constructor(deps: SharesDeps) {
    this.#deps = deps;
    this.#table = new SharesTable(deps.db);
    this.#receipts = new ReceiptsTable(deps.db);
    this.#files = new FilesTable(deps.db);
    const onError = (error: unknown): void =>
      deps.env.log.error("a listener of shares failed", { reason: messageOf(error) });
    this.#changed = this.#owned.add(new Emitter<FileId>(onError));
    this.#accessLost = this.#owned.add(new Emitter<AccessLost>(onError));
    this.#notices = this.#owned.add(new Emitter<NoticeView>(onError));
    this.#keys = new KeyRequests({
      post: deps.post,
      verdict: (fileId, userId) => this.verdict(fileId, userId),
      freshen: (fileId) => this.#dispatch(fileId, { type: "hinted", version: 0 }),
      keyOf: (fileId) => this.#keyOf(fileId),
      onOffered: deps.onOffered,
    });
    this.#owned.add(this.#changed.event((fileId) => this.#keys.answer(fileId)));
    this.#startOldOnes();
    this.#owned.add(deps.signaling.onConnected(() => this.#connected()));
    this.#owned.add(
      deps.signaling.onStateChanged(({ state }) => {
        if (state !== "connected") this.#disconnected();
      }),
    );
    this.#owned.add(
      deps.signaling.onShareChanged(({ fileId, version }) => {
        // Files that nobody asks about are looked at when somebody does; a change may be about our own access, though.
        if (this.#files.get(fileId) !== null) this.#dispatch(fileId, { type: "hinted", version });
      }),
    );
    this.#expiredUntil = this.#now();
    this.#awaitExpiry();
    for (const fileId of this.#table.wishing()) this.follow(fileId);
    if (this.#table.due().size > 0) this.#tellLater();
  }

  get onChanged(): Event<FileId> {
    return this.#changed.event;
  }
  get onAccessLost(): Event<AccessLost> {
    return this.#accessLost.event;
  }
  get onNotice(): Event<NoticeView> {
    return this.#notices.event;
  }

  start(fileId: FileId, members: readonly UserId[], terms: Partial<ShareTerms> = {}): ShareOperation {
    const { account, env } = this.#deps;
    const empty = emptyList(fileId, account.userId, logCrypto);
    const wish: ShareWish = { kind: "add", userIds: members };
    const draft = draftFor({ ...empty, terms: { ...defaultTerms, ...terms } }, wish, account.userId, env.clock.now());
    if (!draft.ok) throw new Error(draft.error.message);
    const operation = signShareOperation(draft.value, account);
    const list = append(empty, operation, logCrypto);
    if (!list.ok) throw new Error(list.error.message);
    this.#table.append(list.value, [operation], [list.value.head]);
    this.#awaitExpiry();
    return operation;
  }

  members(fileId: FileId): UserId[] {
    const record = this.#files.get(fileId);
    if (record === null) return [];
    const { list } = this.#replica(fileId);
    const revoking = this.revoking(fileId);
    const members = [...list.members.keys()].filter((userId) => !revoking.includes(userId));
    return [record.offer.signed.manifest.ownerId, ...members];
  }

  mayServe(fileId: FileId, userId: UserId): boolean {
    return this.verdict(fileId, userId) === "serve";
  }

  verdict(fileId: FileId, userId: UserId): Verdict {
    // Asked for every batch of chunks: of a file that is followed nothing is read from the database.
    if (!this.#followed.has(fileId) && this.#files.get(fileId) === null) return "refuse";
    const replica = this.#replica(fileId);
    // Counted only where it matters.
    const isLimited = replica.list.terms.downloadLimit !== null || replica.wishes.length > 0;
    return verdictOf(replica, userId, this.#now(), isLimited ? this.#deps.downloads(fileId) : undefined);
  }

  closed(fileId: FileId): Closing | null {
    const followed = this.#followed.get(fileId);
    const hasWishes = followed !== undefined && followed.runner.state.wishes.length > 0;
    const limits = hasWishes ? limitsOf(followed.runner.state) : this.#table.limits(fileId);
    if (limits === null) return null;
    // Every view of a file asks this; who has it is counted only where that matters.
    const isLimited = limits.downloadLimit !== null;
    const { people, hasIt } = isLimited ? this.#receipts.downloads(fileId, this.#deps.account.userId) : NOT_COUNTED;
    return closingOf(limits, this.#now(), people, hasIt);
  }

  recounted(fileId: FileId): void {
    this.#tell(fileId);
  }

  #now(): number {
    return Math.max(this.#deps.env.clock.now(), this.#deps.signaling.serverTimeMs ?? 0);
  }

  /** One timer for the file that expires next, looked at again now and then in case a clock is changed. */
  #awaitExpiry(): void {
    this.#expiryTimer?.dispose();
    const next = this.#table.nextExpiry(this.#expiredUntil);
    if (next === null || this.#owned.disposed) return;
    const waitMs = Math.max(0, Math.min(next - this.#now(), SHARE_EXPIRY_CHECK_MS));
    this.#expiryTimer = this.#deps.env.clock.setTimer(waitMs, () => {
      const now = this.#now();
      for (const fileId of this.#table.expiring(this.#expiredUntil, now)) this.#tell(fileId);
      this.#expiredUntil = Math.max(now, this.#expiredUntil);
      this.#awaitExpiry();
    });
  }

  revoking(fileId: FileId): UserId[] {
    // Files with wishes are always followed.
    const wishes = this.#followed.get(fileId)?.runner.state.wishes ?? [];
    return wishes.flatMap(({ what }) => (what.kind === "revoke" ? [...what.userIds] : []));
  }

  follow(fileId: FileId): void {
    if (this.#files.get(fileId) !== null) this.#follow(fileId);
  }

  list(fileId: FileId): ShareList {
    return this.#replica(fileId).list;
  }

  operations(fileId: FileId, version: number): ShareOperation[] {
    return pageOf(this.#table.operations(fileId, version, SHARE_OPERATIONS_PAGE));
  }

  log(fileId: FileId): ShareOperation[] {
    return this.#table.operations(fileId, 1, SHARE_OPERATIONS_MAX);
  }

  registered(fileId: FileId): void {
    const followed = this.#followed.get(fileId);
    if (followed !== undefined) this.#dispatch(fileId, { type: "hinted", version: 0 });
  }

  grant(fileId: FileId, userIds: readonly UserId[]): Promise<Result<void>> {
    const refused = this.#refusalOf(fileId);
    if (refused !== null) return Promise.resolve(err(refused));
    const { list } = this.#replica(fileId);
    if (userIds.some((userId) => !isMember(list, userId) && !this.#deps.isContact(userId)))
      return Promise.resolve(fail("unknown_contact", "Only people whom you are in contact with can be given access."));
    if (this.#deps.signaling.state.state !== "connected") return Promise.resolve(unreachable());
    // Not kept over a restart: whoever pressed the button is told what became of it, and nothing happens behind them.
    this.#passing -= 1;
    return this.#wish(fileId, { id: this.#passing, what: { kind: "add", userIds } });
  }

  revoke(fileId: FileId, userIds: readonly UserId[]): Promise<Result<void>> {
    return this.#lastingWish(fileId, { kind: "revoke", userIds });
  }

  leave(fileId: FileId): Promise<Result<void>> {
    return this.#lastingWish(fileId, { kind: "leave" });
  }

  setTerms(fileId: FileId, change: Parameters<Shares["setTerms"]>[1]): Promise<Result<void>> {
    const refused = this.#refusalOf(fileId);
    if (refused !== null) return Promise.resolve(err(refused));
    const { terms } = this.#replica(fileId).list;
    const {
      membersMayAdd = terms.membersMayAdd,
      expiresAtMs = terms.expiresAtMs,
      downloadLimit = terms.downloadLimit,
    } = change;
    return this.#lastingWish(fileId, { kind: "terms", terms: { membersMayAdd, expiresAtMs, downloadLimit } });
  }

  withdraw(fileId: FileId): Promise<Result<void>> {
    return this.#lastingWish(fileId, { kind: "withdraw" });
  }

  /** Kept until the server has it. */
  #lastingWish(fileId: FileId, what: ShareWish): Promise<Result<void>> {
    const refused = this.#refusalOf(fileId) ?? this.#impossible(fileId, what);
    if (refused !== null) return Promise.resolve(err(refused));
    const id = this.#table.addWish(fileId, what);
    const done = this.#wish(fileId, { id, what });
    return this.#deps.signaling.state.state === "connected" ? done : Promise.resolve(ok(undefined));
  }

  /** What will not be allowed later either. */
  #impossible(fileId: FileId, what: ShareWish): AppError | null {
    const { account, env } = this.#deps;
    const draft = draftFor(this.#replica(fileId).list, what, account.userId, env.clock.now());
    return draft.ok || draft.error.type !== "share_not_allowed" ? null : draft.error;
  }

  #refusalOf(fileId: FileId): AppError | null {
    const record = this.#files.get(fileId);
    if (record === null) return { type: "unknown_file", message: "This file is not known here." };
    if (record.access === "granted") return null;
    return { type: "access_revoked", message: "You have no access to this file any more." };
  }

  #wish(fileId: FileId, wish: { id: number; what: ShareWish }): Promise<Result<void>> {
    return new Promise((resolve) => {
      this.#waiting.set(wish.id, resolve);
      this.#dispatch(fileId, { type: "wished", wish });
    });
  }

  /** Own files from before there were lists: their first operation says what the database said. */
  #startOldOnes(): void {
    this.#deps.db.transaction(() => {
      for (const fileId of this.#table.withoutList()) this.start(fileId, this.#files.get(fileId)?.sharedWith ?? []);
    });
  }

  // ---- Machines ------------------------------------------------------------------------------------------------------

  #replica(fileId: FileId): Replica {
    return this.#follow(fileId).runner.state;
  }

  #follow(fileId: FileId): Followed {
    const known = this.#followed.get(fileId);
    if (known !== undefined) return known;
    const followed: Followed = {
      runner: new MachineRunner(this.#stored(fileId), this.#step, (effect) => this.#run(fileId, followed, effect)),
      connection: 0,
      retry: null,
    };
    this.#followed.set(fileId, followed);
    for (const wish of this.#table.wishes(fileId)) this.#dispatch(fileId, { type: "wished", wish });
    if (this.#deps.signaling.state.state === "connected") this.#dispatch(fileId, { type: "connected" });
    return followed;
  }

  #stored(fileId: FileId): Replica {
    const { userId } = this.#deps.account;
    const stored = this.#table.get(fileId);
    if (stored !== null)
      return { ...startReplica(userId, stored.list, stored.heads), ownerVersion: stored.ownerVersion };
    const ownerId = this.#files.get(fileId)?.offer.signed.manifest.ownerId ?? userId;
    return startReplica(userId, emptyList(fileId, ownerId, logCrypto), []);
  }

  #dispatch(fileId: FileId, event: ReplicaEvent): void {
    if (this.#owned.disposed) return;
    const { runner } = this.#follow(fileId);
    const before = runner.state.ownerVersion;
    runner.dispatch({ ...event, nowMs: this.#deps.env.clock.now() });
    if (runner.state.ownerVersion !== before) this.#table.setOwnerVersion(fileId, runner.state.ownerVersion);
  }

  #connected(): void {
    for (const [fileId, followed] of this.#followed) {
      followed.connection += 1;
      this.#dispatch(fileId, { type: "connected" });
    }
  }

  #disconnected(): void {
    for (const [fileId, followed] of this.#followed) {
      followed.connection += 1;
      if (followed.runner.state.connected) this.#dispatch(fileId, { type: "disconnected" });
    }
  }

  #run(fileId: FileId, followed: Followed, effect: ReplicaEffect): void {
    switch (effect.type) {
      case "fetch":
        void this.#fetch(fileId, followed, effect.since);
        return;
      case "submit":
        void this.#submit(fileId, followed, effect.draft);
        return;
      case "store":
        this.#store(fileId, followed.runner.state.list, effect.operations, effect.before);
        return;
      case "restore":
        void this.#restore(fileId, effect.from);
        return;
      case "settled":
        if (effect.wish > 0) this.#table.removeWish(effect.wish);
        this.#waiting.get(effect.wish)?.(effect.error === null ? ok(undefined) : err(effect.error));
        this.#waiting.delete(effect.wish);
        return;
      case "changed":
        this.#tell(fileId);
        return;
      default:
        this.#notices.emit({
          level: effect.report === "share_rolled_back" ? "warning" : "error",
          type: effect.report,
          message: REPORTS[effect.report],
          atMs: this.#deps.env.clock.now(),
        });
    }
  }

  /** The answer of the server, while the connection is the one that it was asked over. */
  async #ask<T>(followed: Followed, request: Promise<Result<T>>, answered: (answer: Result<T>) => void): Promise<void> {
    const { connection } = followed;
    const answer = await request;
    if (!this.#owned.disposed && followed.connection === connection) answered(answer);
  }

  async #fetch(fileId: FileId, followed: Followed, since: number): Promise<void> {
    const { signaling } = this.#deps;
    await this.#ask(followed, signaling.request("files.operations", { fileId, since }), (answer) => {
      if (answer.ok) {
        this.#dispatch(fileId, { type: "fetched", ...answer.value });
        return;
      }
      const unknown = answer.error.type === "unknown_file";
      this.#dispatch(fileId, { type: "fetchFailed", unknown });
      // What the server does not know it will not know by itself.
      if (!unknown) this.#fetchLater(fileId, followed);
    });
  }

  #fetchLater(fileId: FileId, followed: Followed): void {
    followed.retry?.dispose();
    followed.retry = this.#deps.env.clock.setTimer(SHARE_RETRY_MS, () => {
      followed.retry = null;
      if (followed.runner.state.connected) this.#dispatch(fileId, { type: "hinted", version: 0 });
    });
  }

  async #submit(fileId: FileId, followed: Followed, draft: ShareDraft): Promise<void> {
    const operation = signShareOperation(draft, this.#deps.account);
    const request = this.#deps.signaling.request("files.operate", { fileId, operations: [operation] });
    await this.#ask(followed, request, (answer) => {
      if (answer.ok) this.#dispatch(fileId, { type: "submitted", operation });
      else if (answer.error.type === "share_conflict") this.#dispatch(fileId, { type: "conflicted" });
      else if (answer.error.type.startsWith("share_")) {
        const { type, message } = answer.error;
        this.#dispatch(fileId, { type: "submitFailed", error: { type, message } });
      } else {
        this.#dispatch(fileId, { type: "submitFailed", error: null });
        this.#fetchLater(fileId, followed);
      }
    });
  }

  async #restore(fileId: FileId, from: number): Promise<void> {
    const { list } = this.#replica(fileId);
    if (from === 1) {
      if (list.ownerId === this.#deps.account.userId) this.#deps.registerAgain(fileId);
      return;
    }
    for (let version = from; version <= list.version; ) {
      const operations = this.operations(fileId, version);
      const answer = await this.#deps.signaling.request("files.operate", { fileId, operations });
      if (!answer.ok || operations.length === 0) return;
      version += operations.length;
    }
  }

  // ---- What the list says ---------------------------------------------------------------------------------------------

  #store(fileId: FileId, list: ShareList, operations: readonly ShareOperation[], before: ShareList): void {
    const record = this.#files.get(fileId);
    if (record === null) return;
    const { account, db } = this.#deps;
    const heads = operations.map((operation) => operationHash(operation, logCrypto));
    const why = record.access === "granted" ? this.#whyLost(list, operations) : null;
    db.transaction(() => {
      this.#table.append(list, operations, heads);
      this.#files.setMembers(fileId, [...list.members.keys()], list.version);
      if (why !== null) this.#files.loseKey(fileId, why === "left" ? "left" : "revoked");
      for (const operation of operations)
        if (operation.actor === account.userId) this.#made(fileId, operation, before, list);
    });
    this.#awaitExpiry();
    if (why === null) return;
    this.#accessLost.emit({ fileId, why });
    if (why !== "left") this.#tellLost(record, why);
  }

  /** An operation of ours is in the list: whoever it adds gets the key, and everybody concerned has to hear of it. */
  #made(fileId: FileId, operation: ShareOperation, before: ShareList, after: ShareList): void {
    if (operation.version === 1) return;
    const { account, isContact } = this.#deps;
    const concerned = new Set([after.ownerId, ...before.members.keys(), ...after.members.keys()]);
    for (const peer of concerned) if (peer !== account.userId && isContact(peer)) this.#table.addDue(peer, fileId);
    this.#tellLater();
    const has = operation.kind === "add" ? this.#keyOf(fileId) : null;
    if (has === null) return;
    for (const userId of operation.userIds) {
      const sent = this.#deps.sendKey(userId, has.offer, has.start);
      // Its receipt comes once this transaction is done.
      if (sent.ok) queueMicrotask(() => this.#deps.onOffered(fileId, userId));
      else this.#deps.env.log.warn("a file's key was not sent", { type: sent.error.type });
    }
  }

  /** What somebody needs to fetch and open the file; null when we do not have it. */
  #keyOf(fileId: FileId): { offer: FileOffer; start: ShareOperation } | null {
    const record = this.#files.get(fileId);
    const [start] = this.#table.operations(fileId, 1, 1);
    return record === null || record.access !== "granted" || start === undefined
      ? null
      : { offer: record.offer, start };
  }

  received(from: UserId, content: ContentOf<"shareNotice" | "keyRequest">): void {
    queueMicrotask(() => {
      if (this.#owned.disposed) return;
      if (content.kind === "keyRequest") {
        this.#keys.wanted(from, content.fileId, this.#files.get(content.fileId) !== null);
        return;
      }
      for (const { fileId, version, head } of content.shares) {
        // Whoever tells us of a file that we do not have can give us its key, if we may have it.
        if (this.#files.get(fileId) === null) this.#keys.ask(from, fileId);
        else this.#dispatch(fileId, { type: "told", from, version, head });
      }
    });
  }

  #tellLater(): void {
    this.#noticeTimer ??= this.#deps.env.clock.setTimer(SHARE_NOTICE_DELAY_MS, () => {
      this.#noticeTimer = null;
      this.#deps.db.transaction(() => {
        for (const [peer, fileIds] of this.#table.due()) {
          const shares = fileIds.flatMap((fileId) => this.#endFor(peer, fileId) ?? []);
          for (let at = 0; at < shares.length; at += SHARE_NOTICE_FILES_MAX)
            this.#deps.post(peer, { kind: "shareNotice", shares: shares.slice(at, at + SHARE_NOTICE_FILES_MAX) });
          this.#table.clearDue(peer);
        }
      });
    });
  }

  /** The end of the list as that person may read it: somebody who is no member, up to what made it so. */
  #endFor(peer: UserId, fileId: FileId): { fileId: FileId; version: number; head: Bytes } | null {
    const { list } = this.#replica(fileId);
    if (isMember(list, peer)) return { fileId, version: list.version, head: list.head };
    const last = this.#table.lastNaming(fileId, peer);
    return last === null ? null : { fileId, version: last.version, head: operationHash(last, logCrypto) };
  }

  /** Null while we may have the file, and also when nobody ever took it from us: a server that leaves us out says nothing. */
  #whyLost(list: ShareList, operations: readonly ShareOperation[]): AccessLost["why"] | null {
    const { userId } = this.#deps.account;
    if (isMember(list, userId)) return null;
    const last = operations.findLast((operation) => operation.kind !== "add" && concerns(operation, userId));
    if (last === undefined) return null;
    if (last.kind === "withdraw") return "withdrawn";
    return last.kind === "leave" ? "left" : "revoked";
  }

  #tellLost({ offer }: FileRecord, why: "revoked" | "withdrawn"): void {
    const owner = this.#deps.nameOf(offer.signed.manifest.ownerId) ?? "The owner";
    this.#notices.emit({
      level: "warning",
      type: why === "revoked" ? "access_revoked" : "file_withdrawn",
      message:
        why === "revoked" ? `${owner} took back your access to ${offer.name}.` : `${owner} withdrew ${offer.name}.`,
      atMs: this.#deps.env.clock.now(),
    });
  }

  /** Once for everything that one event changed, and never in the middle of it. */
  #tell(fileId: FileId): void {
    if (this.#untold.size === 0)
      queueMicrotask(() => {
        const fileIds = [...this.#untold];
        this.#untold.clear();
        if (!this.#owned.disposed) for (const id of fileIds) this.#changed.emit(id);
      });
    this.#untold.add(fileId);
  }

  dispose(): void {
    this.#owned.dispose();
    this.#noticeTimer?.dispose();
    this.#expiryTimer?.dispose();
    for (const { retry } of this.#followed.values()) retry?.dispose();
    for (const settle of this.#waiting.values())
      settle(fail("closing", "Weir is closing. Try again after the next start."));
    this.#waiting.clear();
  }
}
