import * as v from "valibot";
import { assertNever } from "#shared/base/assert.ts";
import type { Disposable } from "#shared/base/disposable.ts";
import { Emitter } from "#shared/base/emitter.ts";
import type { Env, Log } from "#shared/base/env.ts";
import type { FileId, Generation, UserId } from "#shared/base/ids.ts";
import { MachineRunner } from "#shared/base/machine.ts";
import { type AppError, messageOf, type Result } from "#shared/base/result.ts";
import type { ServerView } from "#shared/ipc/views.ts";
import {
  ChallengeSchema,
  loginSigningBytes,
  PROTOCOL,
  pushes,
  type RequestInput,
  type RequestName,
  type RequestOutput,
  type Sealed,
} from "#shared/rendezvous/protocol.ts";
import { type Client, openClient, parseServerUrl } from "./client.ts";
import { Deferrals } from "./deferrals.ts";
import { EnvelopeInbox } from "./envelope-inbox.ts";
import { IceServers } from "./ice-servers.ts";
import { RelayLines, type RelayPort } from "./relay-lines.ts";
import { RequestQueue, readAnswer } from "./request-queue.ts";
import type { EnvelopePush, Signaling, SignalingIdentity } from "./signaling.ts";
import { type Challenge, type Effect, type Event, initialState, type State, step } from "./signaling-machine.ts";

export interface SignalingDeps {
  readonly env: Env;
  readonly identity: SignalingIdentity;
}

export const createSignaling = (deps: SignalingDeps): Signaling => new SignalingClient(deps);

const PushSchema = v.object({ name: v.string(), value: v.unknown() });

/** Runs the effects of the signaling machine and feeds back what clients and timers do. */
class SignalingClient implements Signaling {
  readonly #env: Env;
  readonly #identity: SignalingIdentity;
  readonly #log: Log;
  readonly #runner: MachineRunner<State, Event, Effect>;
  readonly #requests: RequestQueue;
  readonly #deferrals: Deferrals;
  readonly #inbox: EnvelopeInbox;
  readonly #iceServers: IceServers;
  readonly #relays: RelayLines;
  readonly #stateChanged: Emitter<ServerView>;
  readonly #connected: Emitter<{ generation: Generation }>;
  readonly #signal: Emitter<{ from: UserId; sealed: Sealed; generation: Generation }>;
  readonly #presence: Emitter<{ userId: UserId; online: boolean }>;
  readonly #keysLow: Emitter<{ oneTimeEc: number; oneTimeKyber: number }>;
  readonly #shareChanged: Emitter<{ fileId: FileId; version: number }>;
  /** What the server's clock is ahead of our monotonic one. */
  #serverClock: number | null = null;
  readonly #receiptAdded: Emitter<{ fileId: FileId }>;
  #serverId: string | null = null;
  #client: { readonly generation: Generation; readonly client: Client } | null = null;
  #timer: Disposable | null = null;
  #staleEvents = 0;
  #malformedPushes = 0;
  #disposed = false;

  constructor({ env, identity }: SignalingDeps) {
    this.#env = env;
    this.#identity = identity;
    this.#log = env.log.child("signaling");
    const countStale = (): void => this.#countStale("answer");
    this.#runner = new MachineRunner(initialState, step, (effect) => this.#run(effect));
    this.#requests = new RequestQueue(env, () => identity.newRequestKey(), countStale);
    const acknowledge = async (ids: EnvelopePush["id"][]): Promise<boolean> =>
      (await this.request("mailbox.ack", { ids })).ok;
    this.#deferrals = new Deferrals(env, async (senders) => (await this.request("mailbox.defer", { senders })).ok);
    this.#inbox = new EnvelopeInbox(this.#log, acknowledge, this.#deferrals, countStale);
    this.#iceServers = new IceServers(env.clock, () => this.request("turn", {}));
    this.#relays = new RelayLines((name, input) => this.request(name, input), countStale);
    const onListenerError = (error: unknown): void => this.#log.error("a listener failed", { error: messageOf(error) });
    this.#stateChanged = new Emitter(onListenerError);
    this.#connected = new Emitter(onListenerError);
    this.#signal = new Emitter(onListenerError);
    this.#presence = new Emitter(onListenerError);
    this.#keysLow = new Emitter(onListenerError);
    this.#shareChanged = new Emitter(onListenerError);
    this.#receiptAdded = new Emitter(onListenerError);
  }

  get state(): ServerView {
    const state = this.#runner.state;
    const { url } = state;
    switch (state.kind) {
      case "disconnected":
        return { state: "disconnected", url, error: state.error };
      case "connecting":
        return { state: "connecting", url, error: state.error };
      case "connected":
        return { state: "connected", url, error: null };
      case "closing":
        return { state: state.next === null ? "disconnected" : "connecting", url, error: state.error };
      default:
        return assertNever(state);
    }
  }

  get serverId(): string | null {
    return this.#serverId;
  }

  get generation(): Generation {
    return this.#runner.state.generation;
  }

  get serverTimeMs(): number | null {
    return this.#serverClock === null ? null : this.#serverClock + this.#env.clock.monotonicMs();
  }

  get onStateChanged() {
    return this.#stateChanged.event;
  }
  get onConnected() {
    return this.#connected.event;
  }
  get onSignal() {
    return this.#signal.event;
  }
  get onPresence() {
    return this.#presence.event;
  }
  get onKeysLow() {
    return this.#keysLow.event;
  }
  get onShareChanged() {
    return this.#shareChanged.event;
  }
  get onReceiptAdded() {
    return this.#receiptAdded.event;
  }

  enable(url: string): void {
    const parsed = parseServerUrl(url);
    if (this.#disposed) return;
    if (parsed.ok) {
      // A request belongs to the server that it was meant for.
      const { state } = this.#runner;
      if (state.kind !== "disconnected" && state.url !== url) this.#requests.close();
      this.#requests.open();
      this.#runner.dispatch({ type: "enable", url });
    } else this.#disable({ url, error: parsed.error });
  }

  disable(): void {
    if (!this.#disposed) this.#disable(null);
  }

  #disable(because: { url: string; error: AppError } | null): void {
    this.#runner.dispatch({ type: "disable", because });
    this.#requests.close();
  }

  request<Name extends RequestName>(name: Name, input: RequestInput<Name>): Promise<Result<RequestOutput<Name>>> {
    return this.#requests.request(name, input);
  }

  iceServers(): Promise<Result<readonly string[]>> {
    return this.#iceServers.get();
  }

  get relay(): RelayPort {
    return this.#relays;
  }

  setEnvelopeHandler(handler: (envelope: EnvelopePush) => Promise<"ack" | "retry">): void {
    this.#inbox.setHandler(handler);
  }

  askAgain(from: UserId): void {
    if (!this.#disposed) this.#deferrals.askAgain(from);
  }

  dispose(): void {
    if (this.#disposed) return;
    this.disable();
    this.#disposed = true;
    this.#timer?.dispose();
    this.#client?.client.dispose();
    this.#client = null;
    this.#inbox.lost();
    this.#relays.dispose();
    this.#deferrals.dispose();
    this.#requests.dispose();
    for (const emitter of [
      this.#stateChanged,
      this.#connected,
      this.#signal,
      this.#presence,
      this.#keysLow,
      this.#shareChanged,
      this.#receiptAdded,
    ]) {
      emitter.dispose();
    }
  }

  #run(effect: Effect): void {
    switch (effect.type) {
      case "openClient":
        this.#open(effect.generation, effect.url);
        break;
      case "logIn":
        this.#logIn(effect.generation, effect.challenge);
        break;
      case "closeClient":
        this.#close(effect.generation, effect.report);
        break;
      case "setTimer":
        this.#setTimer(effect.generation, effect.delayMs);
        break;
      case "stopTimer":
        this.#timer?.dispose();
        this.#timer = null;
        break;
      case "announceConnected":
        this.#announceConnected(effect.generation);
        break;
      case "announceLost":
        this.#requests.lost();
        this.#inbox.lost();
        this.#relays.lost();
        break;
      case "publish":
        this.#stateChanged.emit(this.state);
        break;
      case "countStale":
        this.#countStale(effect.event);
        break;
      default:
        assertNever(effect);
    }
  }

  #open(generation: Generation, address: string): void {
    if (this.#disposed) return;
    const url = parseServerUrl(address);
    const jitter = (): number => this.#env.random.number();
    if (!url.ok) {
      this.#runner.dispatch({ type: "lost", generation, error: url.error, byServer: false, jitter: jitter() });
      return;
    }
    const client = openClient(url.value, {
      challenged: (raw) => {
        const challenge = v.safeParse(ChallengeSchema, raw);
        if (challenge.success) this.#runner.dispatch({ type: "challenged", generation, challenge: challenge.output });
        else this.#malformed("challenge");
      },
      pushed: (push, taken) => this.#pushed(generation, push, taken),
      relayed: (frame) => this.#relayed(generation, frame),
      lost: (error, byServer) => this.#runner.dispatch({ type: "lost", generation, error, byServer, jitter: jitter() }),
    });
    this.#client = { generation, client };
  }

  /** The client of a generation, if that is still the one in use. */
  #clientOf(generation: Generation): Client | null {
    return this.#client?.generation === generation ? this.#client.client : null;
  }

  #logIn(generation: Generation, { nonce, serverId }: Challenge): void {
    const client = this.#clientOf(generation);
    if (client === null) {
      this.#countStale("logIn");
      return;
    }
    const { userId, deviceId, accountKey } = this.#identity;
    const { host } = client;
    const signature = this.#identity.sign(loginSigningBytes(nonce, serverId, host, userId));
    const input = { protocol: PROTOCOL, userId, deviceId, accountKey, host, signature };
    client.send({ key: this.#identity.newRequestKey(), name: "login", input }, (raw) => {
      const answer = readAnswer("login", raw);
      if (answer.ok) {
        this.#log.info("logged in", { generation, serverId, pendingEnvelopes: answer.value.pendingEnvelopes });
        // An answer that is stale by now comes of a client that is closed, and those report nothing.
        if (this.#serverId !== null && this.#serverId !== serverId) this.#iceServers.forget();
        this.#serverId = serverId;
        this.#serverClock = answer.value.serverTimeMs - this.#env.clock.monotonicMs();
        this.#runner.dispatch({ type: "loginAccepted", generation });
      } else {
        this.#log.warn("login refused", { generation, type: answer.error.type });
        const jitter = this.#env.random.number();
        this.#runner.dispatch({ type: "loginRefused", generation, error: answer.error, jitter });
      }
    });
  }

  #close(generation: Generation, report: boolean): void {
    this.#clientOf(generation)?.dispose();
    if (this.#client?.generation === generation) this.#client = null;
    if (report) this.#runner.dispatch({ type: "closed", generation });
  }

  #setTimer(generation: Generation, delayMs: number): void {
    this.#timer?.dispose();
    this.#timer = this.#env.clock.setTimer(delayMs, () => {
      this.#runner.dispatch({ type: "timerFired", generation, jitter: this.#env.random.number() });
    });
  }

  #announceConnected(generation: Generation): void {
    const client = this.#clientOf(generation);
    if (client === null) {
      this.#countStale("announceConnected");
      return;
    }
    this.#inbox.connected(generation);
    this.#requests.connected(generation, client.send);
    this.#relays.connected(client);
    this.#connected.emit({ generation });
  }

  #pushed(generation: Generation, raw: unknown, taken: () => void): void {
    const state = this.#runner.state;
    if (state.kind !== "connected" || state.generation !== generation) {
      this.#countStale("push");
      return;
    }
    const push = v.safeParse(PushSchema, raw);
    if (!push.success) {
      this.#malformed("push");
      return;
    }
    const { name, value } = push.output;
    switch (name) {
      case "envelope":
        this.#accept(pushes.envelope, value, name, (envelope) => this.#inbox.received(envelope));
        break;
      case "signal":
        this.#accept(pushes.signal, value, name, (signal) => {
          taken();
          this.#signal.emit({ ...signal, generation });
        });
        break;
      case "presence":
        this.#accept(pushes.presence, value, name, (presence) => this.#presence.emit(presence));
        break;
      case "shareChanged":
        this.#accept(pushes.shareChanged, value, name, (change) => this.#shareChanged.emit(change));
        break;
      case "receiptAdded":
        this.#accept(pushes.receiptAdded, value, name, (added) => this.#receiptAdded.emit(added));
        break;
      case "keysLow":
        this.#accept(pushes.keysLow, value, name, (left) => this.#keysLow.emit(left));
        break;
      case "relayCredit":
        this.#accept(pushes.relayCredit, value, name, ({ relayId, grantedBytes }) =>
          this.#relays.credit(relayId, grantedBytes),
        );
        break;
      case "relayClosed":
        this.#accept(pushes.relayClosed, value, name, ({ relayId, reason }) => this.#relays.closed(relayId, reason));
        break;
      default:
        // A newer server may say more than this program knows.
        this.#malformed("push");
    }
  }

  #relayed(generation: Generation, frame: unknown): void {
    const { state } = this.#runner;
    if (state.kind !== "connected" || state.generation !== generation) this.#countStale("relay");
    else if (!this.#relays.frame(frame)) this.#malformed("relay");
  }

  #accept<T>(schema: v.GenericSchema<unknown, T>, value: unknown, name: string, use: (value: T) => void): void {
    const parsed = v.safeParse(schema, value, { abortEarly: true });
    if (parsed.success) use(parsed.output);
    else this.#malformed(name);
  }

  #countStale(event: string): void {
    this.#staleEvents++;
    this.#log.debug("stale event dropped", { event, staleEvents: this.#staleEvents });
  }

  #malformed(name: string): void {
    this.#malformedPushes++;
    this.#log.warn("malformed push dropped", { name, malformedPushes: this.#malformedPushes });
  }
}
