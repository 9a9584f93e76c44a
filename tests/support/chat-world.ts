import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as v from "valibot";
import { defined } from "#shared/base/assert.ts";
import type { Bytes } from "#shared/base/bytes.ts";
import { toDisposable } from "#shared/base/disposable.ts";
import { Emitter } from "#shared/base/emitter.ts";
import type { Clock, Env, Random } from "#shared/base/env.ts";
import { chatIdOf, EnvelopeIdSchema, type UserId } from "#shared/base/ids.ts";
import { fail, ok } from "#shared/base/result.ts";
import type { LinkView, MessageView, NoticeView, ServerView } from "#shared/ipc/views.ts";
import type { DeviceKeys, RequestInput, Sealed } from "#shared/rendezvous/protocol.ts";
import { decodeControl, encodeControl } from "#shared/wire/control.ts";
import { type Contacts, createContacts } from "../../src-main/contacts/contacts.ts";
import { type Account, loadOrCreateAccount, verifyAccountSignature } from "../../src-main/crypto/identity.ts";
import type { Sessions } from "../../src-main/crypto/sessions.ts";
import { createSessions } from "../../src-main/crypto/signal-sessions.ts";
import type { LinksDeps } from "../../src-main/links/connection-manager.ts";
import type { Links } from "../../src-main/links/links.ts";
import type { FilesPort, ReceivePoint, SharesPort } from "../../src-main/messages/inbox.ts";
import { createMessages, type Messages } from "../../src-main/messages/messages.ts";
import type { EnvelopePush, Signaling } from "../../src-main/signaling/signaling.ts";
import { Database } from "../../src-main/store/database.ts";
import { appMigrations } from "../../src-main/store/schema/app.ts";
import { COUNTING_IDENTITY_KEY, createCountingSessions } from "./counting-sessions.ts";
import { quietLog } from "./files.ts";
import { seededNumbers } from "./seeded.ts";

/**
 * Profiles with real databases, contacts and messages around a server and links that are doubles: they lose, repeat and
 * reorder on demand, and a profile can be killed at any moment and started again. Time is virtual.
 */
const START_MS = Date.UTC(2026, 0, 1);
const SERVER_URL = "ws://127.0.0.1:4000";
const INVITE_TTL_MS = 10 * 60 * 1000;

const ignore = (): void => undefined;
const noRelay = (): never => {
  throw new Error("the double relays nothing");
};
const rethrow = (error: unknown): never => {
  throw error;
};
const nextTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

interface Timer {
  readonly atMs: number;
  readonly fn: () => void;
  readonly owner: { alive: boolean };
}

interface Frame {
  readonly from: UserId;
  readonly to: UserId;
  readonly generation: number;
  readonly bytes: Bytes;
}

interface Invite {
  readonly inviteId: Bytes;
  readonly userId: UserId;
  readonly accountKey: Bytes;
  readonly commitment: Bytes;
  readonly expiresAtMs: number;
}

type Publish = RequestInput<"keys.publish">;

export interface WorldOptions {
  readonly seed?: number;
  /** libsignal, or the small double that counts. */
  readonly crypto?: "signal" | "counting";
  /** Every commit waits for the disk, as outside of tests. */
  readonly durable?: boolean;
  /** Where the profiles are; a fresh folder, removed at the end, if not given. */
  readonly folder?: string;
  /** Real links in place of the double, and what becomes of their signals. */
  readonly network?: Network;
}

export interface Network {
  links(peer: ChatPeer, life: { readonly alive: boolean }, deps: Omit<LinksDeps, "driver">): Links;
  /** The server has told the sender that it delivered this. */
  signal(to: ChatPeer, from: UserId, sealed: Sealed): void;
}

export class ChatWorld {
  nowMs = START_MS;
  /** Another one makes it another server, with mailboxes of its own. */
  serverId = "server-1";
  readonly crypto: "signal" | "counting";
  readonly durable: boolean;
  readonly number: () => number;
  readonly peers = new Map<UserId, ChatPeer>();
  readonly wire: Frame[] = [];
  readonly mailboxes = new Map<UserId, EnvelopePush[]>();
  readonly codes = new Map<string, Invite>();
  readonly keys = new Map<UserId, { accountKey: Bytes; published: Publish }>();
  /** Lets a test stand in the middle of `invites.resolve`. */
  tamper: (invite: Invite) => Invite = (invite) => invite;
  readonly folder: string;
  readonly network: Network | null;
  #timers: Timer[] = [];
  #links = new Map<string, number>();
  #generations = 0;
  #codes = 0;

  constructor(options: WorldOptions = {}) {
    this.crypto = options.crypto ?? "signal";
    this.durable = options.durable ?? false;
    this.number = seededNumbers(options.seed ?? 1);
    this.folder = options.folder ?? mkdtempSync(join(tmpdir(), "weir-chat-"));
    this.network = options.network ?? null;
  }

  async join(name: string): Promise<ChatPeer> {
    const peer = new ChatPeer(this, name, join(this.folder, `${name}.db`));
    await peer.start();
    this.peers.set(peer.userId, peer);
    return peer;
  }

  envFor(owner: { alive: boolean }): Env {
    const clock: Clock = {
      now: () => this.nowMs,
      monotonicMs: () => this.nowMs,
      setTimer: (delayMs, fn) => {
        const timer = { atMs: this.nowMs + delayMs, fn, owner };
        this.#timers.push(timer);
        return toDisposable(() => {
          this.#timers = this.#timers.filter((other) => other !== timer);
        });
      },
    };
    const random: Random = {
      bytes: (length) => Uint8Array.from({ length }, () => Math.floor(this.number() * 256)),
      number: this.number,
    };
    return { clock, random, log: quietLog };
  }

  /** Moves the time on, timer by timer, and lets everything that follows from each happen. */
  async advance(ms: number): Promise<void> {
    const untilMs = this.nowMs + ms;
    for (;;) {
      const due = this.#timers.filter((t) => t.owner.alive && t.atMs <= untilMs).sort((a, b) => a.atMs - b.atMs)[0];
      if (due === undefined) break;
      this.#timers = this.#timers.filter((timer) => timer !== due);
      this.nowMs = Math.max(this.nowMs, Math.ceil(due.atMs));
      due.fn();
      await this.run();
    }
    this.nowMs = untilMs;
    await this.run();
  }

  /** Waits until no profile computes any more, without delivering anything. */
  async settle(): Promise<void> {
    for (let quiet = 0; quiet < 3; ) {
      const before = this.#traffic();
      await nextTurn();
      for (const peer of this.peers.values()) await peer.settled();
      quiet = this.#traffic() === before ? quiet + 1 : 0;
    }
  }

  /** Delivers everything in order until nothing is left to do without time passing. */
  async run(): Promise<void> {
    for (;;) {
      await this.settle();
      const nothing = this.wire.length === 0;
      for (let left = this.wire.length; left > 0; left--) this.deliver(0);
      let pushed = false;
      while (await this.pushMail()) pushed = true;
      if (nothing && !pushed) return;
    }
  }

  /** Everything that happens at once, and then what `ms` more bring. */
  async runFor(ms: number): Promise<void> {
    await this.run();
    await this.advance(ms);
  }

  #traffic(): string {
    const mail = [...this.mailboxes.values()].reduce((sum, box) => sum + box.length, 0);
    return `${this.wire.length} ${mail} ${this.#timers.length}`;
  }

  // ---- Server ----

  newCode(invite: Omit<Invite, "expiresAtMs">): { code: string; expiresAtMs: number } {
    const code = `AAAAA${"ABCDEFGHJKLMNPQRSTUVWXYZ"[this.#codes++] ?? "2"}`;
    const expiresAtMs = this.nowMs + INVITE_TTL_MS;
    this.codes.set(code, { ...invite, expiresAtMs });
    return { code, expiresAtMs };
  }

  put(from: UserId, input: RequestInput<"mailbox.put">): void {
    const to = defined(
      [...this.peers.keys()].find((id) => id === input.to),
      "recipient",
    );
    const box = this.mailboxes.get(to) ?? [];
    this.mailboxes.set(to, box);
    const id = v.parse(EnvelopeIdSchema, input.id);
    if (box.some((envelope) => envelope.id === id)) return;
    const sealed: Sealed = { kind: input.sealed.kind, body: new Uint8Array(input.sealed.body) };
    box.push({ id, from, sealed, receivedAtMs: this.nowMs });
  }

  /**
   * Hands the first envelope of each online mailbox over; false when there was none to hand over. What could not
   * be taken in is left together with everything else of its sender, until that is asked for again.
   */
  async pushMail(acknowledge: () => boolean = () => true): Promise<boolean> {
    let pushed = false;
    for (const peer of this.peers.values()) {
      const envelope = this.mailboxes.get(peer.userId)?.find((mail) => !peer.deferred.has(mail.from));
      if (envelope === undefined || !peer.alive || peer.server !== "connected") continue;
      pushed = true;
      const answer = await peer.handle(envelope);
      if (answer === "retry") peer.deferred.add(envelope.from);
      if (answer !== "ack" || !acknowledge()) continue;
      const rest = (this.mailboxes.get(peer.userId) ?? []).filter((mail) => mail.id !== envelope.id);
      this.mailboxes.set(peer.userId, rest);
    }
    return pushed;
  }

  // ---- Links ----

  linkUp(a: ChatPeer, b: ChatPeer): void {
    this.linkDown(a, b);
    this.#generations += 1;
    this.#links.set(pairOf(a.userId, b.userId), this.#generations);
    a.tellLink(b.userId);
    b.tellLink(a.userId);
  }

  /** Whatever was on its way is lost. */
  linkDown(a: ChatPeer, b: ChatPeer): void {
    if (!this.#links.delete(pairOf(a.userId, b.userId))) return;
    this.wire.splice(0, this.wire.length);
    a.tellLink(b.userId);
    b.tellLink(a.userId);
  }

  generationOf(a: UserId, b: UserId): number | null {
    return this.#links.get(pairOf(a, b)) ?? null;
  }

  deliver(index: number, copies = 1): void {
    const frame = this.wire.splice(index, 1)[0];
    if (frame === undefined) return;
    if (this.generationOf(frame.from, frame.to) !== frame.generation) return;
    for (let i = 0; i < copies; i++) this.peers.get(frame.to)?.receiveFrame(frame.from, frame.generation, frame.bytes);
  }

  async dispose(): Promise<void> {
    for (const peer of this.peers.values()) await peer.stop();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

const pairOf = (a: UserId, b: UserId): string => [a, b].sort().join(" ");

interface Parts {
  readonly life: { alive: boolean };
  readonly db: Database;
  readonly account: Account;
  readonly sessions: Sessions;
  readonly contacts: Contacts;
  readonly messages: Messages;
}

export class ChatPeer {
  readonly world: ChatWorld;
  readonly name: string;
  readonly path: string;
  /** Everything that was ever told to the person, over all lives. */
  readonly notices: NoticeView[] = [];
  /** Senders whose mail the client does not want for now. */
  readonly deferred = new Set<UserId>();
  server: ServerView["state"] = "disconnected";
  serverUrl = SERVER_URL;
  /** How often a safety number was computed, over all lives. */
  safetyNumbersMade = 0;
  preferences = { readReceipts: true, typingIndicators: true };
  /** Throw in here to end the life of the profile at that point. */
  checkpoint: (point: ReceivePoint) => void = ignore;
  /** Answers of requests that the network eats. */
  loseAnswer: (name: string) => boolean = () => false;
  /** What it signs for its identity; a liar's test replaces it. */
  toSign: (bytes: Uint8Array) => Uint8Array = (bytes) => bytes;
  files: FilesPort = { record: () => ok(undefined), view: () => null };
  shares: SharesPort = { received: ignore };
  #parts: Parts | null = null;
  #userId: UserId | null = null;
  #onLink = new Emitter<LinkView>(rethrow);
  #onLinkMessage: Emitter<Parameters<Parameters<Links["onMessage"]>[0]>[0]> = new Emitter(rethrow);
  #onState = new Emitter<ServerView>(rethrow);
  #onConnected = new Emitter<{ generation: number }>(rethrow);
  #onSignal = new Emitter<{ from: UserId; sealed: Sealed; generation: number }>(rethrow);
  #handler: ((envelope: EnvelopePush) => Promise<"ack" | "retry">) | null = null;

  constructor(world: ChatWorld, name: string, path: string) {
    this.world = world;
    this.name = name;
    this.path = path;
  }

  get userId(): UserId {
    return defined(this.#userId, "user id");
  }
  get alive(): boolean {
    return this.#parts?.life.alive ?? false;
  }
  get parts(): Parts {
    return defined(this.#parts, "a living profile");
  }
  get contacts(): Contacts {
    return this.parts.contacts;
  }
  get messages(): Messages {
    return this.parts.messages;
  }
  get sessions(): Sessions {
    return this.parts.sessions;
  }

  async start(): Promise<void> {
    const life = { alive: true };
    const env = this.world.envFor(life);
    const db = Database.openApp(this.path, new Uint8Array(32).fill(7), appMigrations);
    // A killed process loses nothing that the system has taken; only power cuts need the sync that costs most of the time.
    if (!this.world.durable) db.sql.pragma("synchronous = OFF");
    const account = loadOrCreateAccount(db, env);
    this.#userId = account.userId;
    const sessions =
      this.world.crypto === "signal"
        ? await createSessions({ db, env, account, deviceId: 1 })
        : createCountingSessions(db, account.userId);
    const safetyNumber = sessions.safetyNumber.bind(sessions);
    sessions.safetyNumber = (peer) => {
      this.safetyNumbersMade += 1;
      return safetyNumber(peer);
    };
    if (!this.world.keys.has(account.userId) && this.world.crypto === "signal") await this.publish(account, sessions);
    this.#onLink = new Emitter(rethrow);
    this.#onLinkMessage = new Emitter(rethrow);
    this.#onState = new Emitter(rethrow);
    this.#onConnected = new Emitter(rethrow);
    this.#onSignal = new Emitter(rethrow);
    const signaling = this.#signaling(life, account);
    const sign = (bytes: Uint8Array): Bytes => account.sign(this.toSign(bytes));
    const self = { userId: account.userId, accountKey: account.accountKey, sign, name: () => this.name };
    const contacts = createContacts({ env, db, self, sessions, signaling });
    const links =
      this.world.network?.links(this, life, {
        env,
        localUserId: account.userId,
        signaling,
        sessions,
        account,
        verifyAccountSignature,
        accountKeyOf: (peer) => contacts.accountKeyOf(peer),
        mayLink: (peer) => contacts.isAccepted(peer),
      }) ?? this.#links(life);
    this.server = "connected";
    this.deferred.clear();
    const messages = createMessages({
      env,
      db,
      account,
      sessions,
      signaling,
      links,
      contacts,
      files: {
        record: (offer, from, start) => this.files.record(offer, from, start),
        view: (id) => this.files.view(id),
      },
      shares: { received: (from, content) => this.shares.received(from, content) },
      fileReceipts: { received: () => undefined },
      profileName: () => this.name,
      preferences: () => this.preferences,
      checkpoint: (point) => this.checkpoint(point),
    });
    messages.onNotice((notice) => this.notices.push(notice));
    contacts.onNotice((notice) => this.notices.push(notice));
    this.#parts = { life, db, account, sessions, contacts, messages };
  }

  async publish(account: Account, sessions: Sessions): Promise<void> {
    const published = await sessions.keysToPublish({ oneTimeEc: 97, oneTimeKyber: 97 });
    this.world.keys.set(account.userId, { accountKey: account.accountKey, published });
  }

  /** The process is gone from one moment to the next: nothing of it happens any more, the database stays as it is. */
  kill(): void {
    const parts = this.#parts;
    if (parts === null || !parts.life.alive) return;
    parts.life.alive = false;
    this.server = "disconnected";
    for (const other of this.world.peers.values()) if (other !== this) this.world.linkDown(this, other);
    parts.db.dispose();
  }

  async restart(): Promise<void> {
    this.kill();
    await this.start();
  }

  async stop(): Promise<void> {
    const parts = this.#parts;
    if (parts === null || !parts.life.alive) return;
    await this.settled();
    parts.messages.dispose();
    parts.contacts.dispose();
    this.kill();
  }

  async settled(): Promise<void> {
    if (this.alive) await this.parts.messages.settled();
  }

  setServer(state: "connected" | "disconnected"): void {
    if (!this.alive || this.server === state) return;
    this.server = state;
    if (state === "connected") this.deferred.clear();
    this.#onState.emit({ state, url: SERVER_URL, error: null });
    if (state === "connected") this.#onConnected.emit({ generation: 1 });
  }

  async handle(envelope: EnvelopePush): Promise<"ack" | "retry" | "dead"> {
    const { life } = this.parts;
    const answer = await defined(this.#handler, "handler")(envelope);
    return life.alive ? answer : "dead";
  }

  tellLink(peer: UserId): void {
    if (this.alive) this.#onLink.emit(this.#linkView(peer));
  }

  tellSignal(from: UserId, sealed: Sealed): void {
    if (this.alive && this.server === "connected") this.#onSignal.emit({ from, sealed, generation: 1 });
  }

  receiveFrame(from: UserId, generation: number, bytes: Bytes): void {
    if (!this.alive) return;
    const message = decodeControl(bytes);
    if (!message.ok) throw new Error(`malformed control message: ${message.error.message}`);
    const { value } = message;
    switch (value.type) {
      case "hello":
      case "proof":
      case "ping":
      case "pong":
      case "credit":
      case "stripe":
      case "stripeAck":
      case "fin":
      case "finAck":
        throw new Error("a message of links reached the application");
      default:
        this.#onLinkMessage.emit({ peer: from, generation, message: value });
    }
  }

  // ---- What tests ask ----

  send(to: ChatPeer, text: string): MessageView {
    const sent = this.messages.sendText(chatIdOf(to.userId), text);
    if (!sent.ok) throw new Error(`${sent.error.type}: ${sent.error.message}`);
    return sent.value;
  }

  /** Texts of the chat in the order of display. */
  texts(other: ChatPeer, by: ChatPeer | null = null): string[] {
    return this.shown(other)
      .filter((message) => by === null || message.senderId === by.userId)
      .map((message) => message.text);
  }

  shown(other: ChatPeer): MessageView[] {
    const page = this.messages.list(chatIdOf(other.userId), 10_000);
    if (!page.ok) throw new Error(page.error.type);
    return page.value.reverse();
  }

  // ---- Doubles ----

  #signaling(life: { alive: boolean }, account: Account): Signaling {
    const never = new Promise<never>(ignore);
    const peer = this;
    const request = async (name: string, input: unknown): Promise<unknown> => {
      await nextTurn();
      if (!life.alive) return never;
      if (peer.server !== "connected") return fail("server_unreachable", "The server cannot be reached.");
      const answer = peer.#answer(account, name, input);
      await nextTurn();
      if (!life.alive) return never;
      return peer.loseAnswer(name) ? fail("timeout", "No answer.") : answer;
    };
    return {
      get state(): ServerView {
        return { state: peer.server, url: peer.serverUrl, error: null };
      },
      generation: 1,
      get serverId() {
        return peer.world.serverId;
      },
      serverTimeMs: null,
      onStateChanged: this.#onState.event,
      onConnected: this.#onConnected.event,
      onSignal: this.#onSignal.event,
      onPresence: () => toDisposable(ignore),
      onKeysLow: () => toDisposable(ignore),
      onShareChanged: () => toDisposable(ignore),
      onReceiptAdded: () => toDisposable(ignore),
      enable: ignore,
      disable: ignore,
      // The double answers each request with what the table of requests says; the type is checked by those who use it.
      request: request as Signaling["request"],
      setEnvelopeHandler: (handler) => {
        this.#handler = handler;
      },
      askAgain: (from) => void this.deferred.delete(from),
      iceServers: async () => ok([]),
      relay: { open: noRelay, accept: noRelay },
      dispose: ignore,
    };
  }

  #answer(account: Account, name: string, input: unknown): unknown {
    const { world } = this;
    switch (name) {
      case "signal.send": {
        const { to, sealed } = input as RequestInput<"signal.send">;
        const recipient = [...world.peers.values()].find(({ userId }) => userId === to);
        if (recipient?.alive !== true || recipient.server !== "connected") return ok({ delivered: false });
        defined(world.network, "network").signal(recipient, account.userId, sealed);
        return ok({ delivered: true });
      }
      case "mailbox.put":
        world.put(account.userId, input as RequestInput<"mailbox.put">);
        return ok({ stored: true });
      case "invites.create": {
        const { inviteId, commitment } = input as RequestInput<"invites.create">;
        return ok(
          world.newCode({
            inviteId: new Uint8Array(inviteId),
            commitment: new Uint8Array(commitment),
            userId: account.userId,
            accountKey: account.accountKey,
          }),
        );
      }
      case "invites.resolve": {
        const { code } = input as RequestInput<"invites.resolve">;
        const invite = world.codes.get(code);
        if (invite === undefined || invite.expiresAtMs < world.nowMs) return fail("unknown_code", "No such code.");
        world.codes.delete(code);
        return ok(world.tamper(invite));
      }
      case "keys.fetch": {
        const { userId } = input as RequestInput<"keys.fetch">;
        if (world.crypto === "counting") return ok({ keys: { identityKey: COUNTING_IDENTITY_KEY } });
        const entry = [...world.keys].find(([id]) => id === userId)?.[1];
        if (entry === undefined) return fail("unknown_user", "No such user.");
        const { published, accountKey } = entry;
        return ok({
          userId,
          deviceId: 1,
          accountKey,
          keys: published.keys as DeviceKeys,
          oneTimeEc: published.oneTimeEc.shift() ?? null,
          oneTimeKyber: published.oneTimeKyber.shift() ?? null,
        });
      }
      default:
        throw new Error(`unexpected request ${name}`);
    }
  }

  #links(life: { alive: boolean }): Links {
    return {
      list: () => [...this.world.peers.keys()].filter((id) => id !== this.#userId).map((id) => this.#linkView(id)),
      view: (peer) => this.#linkView(peer),
      onChanged: this.#onLink.event,
      onMessage: this.#onLinkMessage.event,
      onBulk: () => toDisposable(ignore),
      onDrained: () => toDisposable(ignore),
      onReplaced: () => toDisposable(ignore),
      onLeft: () => toDisposable(ignore),
      enable: ignore,
      disable: async () => undefined,
      connect: ignore,
      disconnect: async () => undefined,
      reconnect: ignore,
      presenceHint: ignore,
      send: (peer, generation, message) => {
        if (!life.alive || this.world.generationOf(this.userId, peer) !== generation) return false;
        this.world.wire.push({ from: this.userId, to: peer, generation, bytes: encodeControl(message) });
        return true;
      },
      takesHeldFrames: () => false,
      sendBulk: () => "closed",
      release: ignore,
      dispose: ignore,
    };
  }

  #linkView(peer: UserId): LinkView {
    const generation = this.world.generationOf(this.userId, peer);
    const state = generation === null ? "disconnected" : "connected";
    return { peerId: peer, state, generation: generation ?? 0, path: null, rttMs: null, reason: null, staleEvents: 0 };
  }
}

/** Makes a ciphertext unreadable. Setting the byte to a fixed value would now and then change nothing. */
export const damage = ({ body }: { readonly body: Uint8Array }): void => {
  body[body.length - 1] = 255 - (body.at(-1) ?? 0);
};

/** Two people who have accepted each other by link. */
export const pair = async (world: ChatWorld, inviter: ChatPeer, guest: ChatPeer): Promise<void> => {
  const invite = await inviter.contacts.createInvite();
  if (!invite.ok) throw new Error(invite.error.type);
  const accepted = await guest.contacts.acceptInvite(invite.value.link);
  if (!accepted.ok) throw new Error(`${accepted.error.type}: ${accepted.error.message}`);
  await world.run();
  const answered = await inviter.contacts.accept(guest.userId);
  if (!answered.ok) throw new Error(answered.error.type);
  await world.runFor(1000);
};
