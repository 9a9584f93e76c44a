import { assert, assertNever } from "#shared/base/assert.ts";
import type { Bytes } from "#shared/base/bytes.ts";
import type { Env } from "#shared/base/env.ts";
import type { Generation, UserId } from "#shared/base/ids.ts";
import {
  CONTROL_MESSAGE_BYTES_MAX,
  CONTROL_QUEUED_BYTES_MAX,
  LINK_MESSAGE_BYTES_MAX,
  UNEXPECTED_CHANNELS_MAX,
} from "#shared/base/limits.ts";
import type { LinkAttemptView } from "#shared/ipc/views.ts";
import { type ControlMessage, type ControlOf, decodeControl, encodeControl } from "#shared/wire/control.ts";
import {
  BULK_HEADER_BYTES,
  type BulkFrame,
  CONTROL_HEADER_BYTES,
  decodeBulkHead,
  type OutgoingFrame,
  type Payload,
} from "#shared/wire/frame.ts";
import { CandidateBook, type PathFacts } from "./candidate-book.ts";
import { Closing } from "./closing.ts";
import { ControlBudget, ReceiveCredit, SendGate } from "./flow.ts";
import {
  type HandshakeKeys,
  type HandshakeState,
  STRIPES_CAPABILITY,
  startHandshake,
  stepHandshake,
} from "./handshake.ts";
import { type LinkVia, REPLACED } from "./link-state.ts";
import type { AppMessage } from "./links.ts";
import { Liveness } from "./liveness.ts";
import { MessageLanes } from "./message-lanes.ts";
import { Negotiation, type NegotiationDeps } from "./negotiation.ts";
import { Stripes } from "./stripes.ts";
import type { LinkChannel, LinkTransport, TransportEvent } from "./transport.ts";

/**
 * One connection to one peer, from its first description to its last byte: two channels, the proof of identity, liveness,
 * flow control and the orderly end. It belongs to one generation and is never used again.
 *
 *   opening -> handshaking -> open -> closing -> closed, and from everywhere straight to closed
 *
 * It reports; what a report means for the link is the machine's business. After `closed` it reports nothing.
 */
export type ConnectionReport =
  | { readonly type: "localDescription"; readonly sdp: string }
  | { readonly type: "localCandidate"; readonly candidate: string; readonly mid: string }
  | { readonly type: "channelsOpen" }
  | { readonly type: "proven" }
  /** The peer's first message after its own proof: it has seen ours. */
  | { readonly type: "confirmed" }
  | { readonly type: "unsteady" }
  /** The peer said goodbye; what it sent before is still being delivered. */
  | { readonly type: "peerFin" }
  /** It broke, or the peer broke the rules; already closed. */
  | { readonly type: "lost"; readonly reason: string }
  | { readonly type: "message"; readonly message: AppMessage }
  | { readonly type: "bulk"; readonly frame: BulkFrame; readonly bytes: number }
  | { readonly type: "drained" }
  /** Path or round-trip time is known anew. */
  | { readonly type: "measured" };

export interface ConnectionDeps extends Pick<NegotiationDeps, "driver" | "rtc" | "iceServers"> {
  readonly env: Env;
  readonly via: LinkVia;
  readonly localUserId: UserId;
  readonly peer: UserId;
  readonly generation: Generation;
  readonly offerGeneration: Generation;
  readonly keys: HandshakeKeys;
  /** Tells the peer's transfers whether we are still the program that they began with. */
  readonly runId: string;
  /** The handshake fails on a path that does not carry packets of this many bytes. */
  readonly provenBytes?: number | undefined;
  /** Whether further connections of the same kind may carry bulk frames: the relay has nothing to gain. */
  readonly canStripe?: boolean | undefined;
  /** Whether a candidate, ours or the peer's, may be told or used under the contact's network policy. */
  admits(candidate: string): boolean;
  report(report: ConnectionReport): void;
}

type Stage =
  | { readonly name: "opening"; readonly open: ReadonlySet<LinkChannel> }
  | { readonly name: "handshaking"; readonly handshake: HandshakeState }
  | { readonly name: "open"; readonly confirmed: boolean }
  | { readonly name: "closing"; readonly closing: Closing }
  | { readonly name: "closed" };

export interface ConnectionStats extends PathFacts {
  readonly rttMs: number | null;
  readonly unknownMessages: number;
  /** Lossy messages that made way for newer ones. */
  readonly droppedMessages: number;
  readonly servers: LinkAttemptView["servers"];
  readonly via: LinkVia;
  /** Further associations that our bulk frames go over. */
  readonly stripes: number;
}

/** What the end of a transport means for the link. */
const END_REASONS = { failed: "unreachable", closed: "connection_closed", flooded: "control_flood" } as const;

export class LinkConnection {
  readonly generation: Generation;
  readonly #deps: ConnectionDeps;
  readonly #gate = new SendGate();
  readonly #credit = new ReceiveCredit();
  readonly #controlBudget: ControlBudget;
  readonly #ended = Promise.withResolvers<{ readonly complete: boolean }>();
  #stage: Stage = { name: "opening", open: new Set() };
  /** The peer's hello can come before our own channels are reported open. */
  #early: ControlMessage[] = [];
  readonly #candidates: CandidateBook;
  readonly #negotiation: Negotiation;
  readonly #lanes: MessageLanes;
  readonly #liveness: Liveness;
  /** Of a proven connection of WebRTC. */
  #stripes: Stripes | null = null;
  #peerTakesStripes = false;
  #peerRunId: string | null = null;
  #unexpectedChannels = 0;
  #unknownMessages = 0;

  constructor(deps: ConnectionDeps) {
    this.#deps = deps;
    this.generation = deps.generation;
    this.#candidates = new CandidateBook((candidate) => deps.admits(candidate));
    this.#negotiation = new Negotiation({
      clock: deps.env.clock,
      driver: deps.driver,
      rtc: deps.rtc,
      iceServers: deps.iceServers,
      candidates: this.#candidates,
      onEvent: (event) => this.#onRtc(event),
      lose: (reason) => this.#lose(reason),
    });
    this.#controlBudget = new ControlBudget(deps.env.clock.monotonicMs());
    this.#liveness = new Liveness({
      clock: deps.env.clock,
      sendPing: (id) => void this.#sendControl({ type: "ping", id }),
      bytesReceived: () => this.#rtc?.bytesReceived() ?? 0,
      silent: () => {
        if (this.#stage.name === "open") this.#lose("peer_silent");
      },
    });
    this.#lanes = new MessageLanes(deps.env, (report) => this.#report(report));
  }

  /** Null before its hello, or when it is of a version that does not say. */
  get peerRunId(): string | null {
    return this.#peerRunId;
  }

  get stats(): ConnectionStats {
    return {
      ...this.#candidates.facts,
      rttMs: this.#liveness.rttMs,
      unknownMessages: this.#unknownMessages,
      droppedMessages: this.#lanes.dropped,
      servers: this.#negotiation.servers,
      via: this.#deps.via,
      stripes: this.#stripes?.count ?? 0,
    };
  }

  /** Resolves once it is closed, in whichever way; `complete` says that nothing that was sent over it is lost. */
  get ended(): Promise<{ readonly complete: boolean }> {
    return this.#ended.promise;
  }

  /** It is saying goodbye, and still delivers what is on its way. */
  get isClosing(): boolean {
    return this.#stage.name === "closing";
  }

  dial(): void {
    this.#negotiation.dial();
  }

  answer(offer: string): void {
    this.#negotiation.answer(offer);
  }

  acceptAnswer(sdp: string): void {
    this.#negotiation.acceptAnswer(sdp);
  }

  /** An unusable candidate costs nothing but itself; too many of them are not used. */
  addCandidate(candidate: string, mid: string): void {
    this.#negotiation.addCandidate(candidate, mid);
  }

  startHandshake(): void {
    if (this.#stage.name !== "opening") return;
    const fingerprints = this.#negotiation.fingerprints();
    if (!fingerprints.ok) {
      this.#lose(fingerprints.error.type);
      return;
    }
    const [handshake, hello] = startHandshake({
      localUserId: this.#deps.localUserId,
      peerUserId: this.#deps.peer,
      offerGeneration: this.#deps.offerGeneration,
      nonce: this.#deps.env.random.bytes(32),
      runId: this.#deps.runId,
      paddingBytes: this.#deps.provenBytes ?? 0,
      ...fingerprints.value,
    });
    this.#stage = { name: "handshaking", handshake };
    this.#sendControl(hello);
    const early = this.#early;
    this.#early = [];
    for (const message of early) this.#onControl(message);
  }

  send(message: AppMessage): boolean {
    return this.#stage.name === "open" && this.#sendControl(message);
  }

  /** Whether frames to send may be ones that are held in the engine. */
  get takesHeldFrames(): boolean {
    return this.#rtc?.sendHeld !== undefined;
  }

  sendBulk(frame: OutgoingFrame): "sent" | "full" | "closed" {
    const rtc = this.#rtc;
    assert(frame.byteLength <= LINK_MESSAGE_BYTES_MAX, "a bulk frame must fit one message");
    if (this.#stage.name !== "open" || rtc === null) return "closed";
    if (this.#stripes?.hasRoom(frame.byteLength) === false) return "full";
    if (this.#gate.admit(frame.byteLength, this.#queuedBytes()) === "full") return "full";
    const way = this.#stripes?.next(rtc, frame.byteLength) ?? rtc;
    const sent = frame instanceof Uint8Array ? way.send("bulk", frame) : way.sendHeld?.(frame);
    if (sent?.ok === true) return "sent";
    this.#lose("send_failed");
    return "closed";
  }

  release(bytes: number): void {
    if (this.#stage.name !== "open") return;
    const grantedBytes = this.#credit.release(bytes);
    if (grantedBytes !== null) this.#sendControl({ type: "credit", grantedBytes });
  }

  /** Ends it in order. Whatever was sent before arrives, if the peer is there to take it; see `ended`. */
  finish(reason: string): void {
    if (this.#stage.name !== "open") {
      if (this.#stage.name !== "closing") this.close();
      return;
    }
    this.#startClosing(reason);
    this.#sendControl({ type: "fin", reason, bulkBytes: this.#gate.sentBytes });
  }

  /** Pings now; silence counts only from here on, so a dead peer is found within two seconds. */
  probe(): void {
    if (this.#stage.name === "open") this.#liveness.probe();
  }

  /** Callbacks are detached first, then the channels close, the queues are cleared, and whoever waits is woken. */
  close(): void {
    if (this.#stage.name === "closed") return;
    const closing = this.#stage.name === "closing" ? this.#stage.closing : null;
    this.#stage = { name: "closed" };
    closing?.dispose();
    this.#liveness.dispose();
    this.#stripes?.dispose();
    this.#negotiation.dispose();
    this.#early = [];
    this.#lanes.dispose();
    this.#ended.resolve({ complete: closing?.isComplete ?? false });
  }

  get #rtc(): LinkTransport | null {
    return this.#negotiation.transport;
  }

  get #isClosed(): boolean {
    return this.#stage.name === "closed";
  }

  #lose(reason: string): void {
    if (this.#stage.name === "closed") return;
    // What came in order before it broke counts; a listener may close us over it.
    this.#lanes.flush();
    if (this.#isClosed) return;
    const closing = this.#stage.name === "closing" ? this.#stage.closing : null;
    if (reason === "connection_closed") closing?.peerClosed();
    this.close();
    if (closing === null) this.#deps.report({ type: "lost", reason });
  }

  #onRtc(event: TransportEvent): void {
    if (this.#stage.name === "closed") return;
    switch (event.type) {
      case "localDescription":
        this.#deps.report({ type: "localDescription", sdp: this.#negotiation.described(event.sdp) });
        return;
      case "localCandidate":
        if (this.#candidates.found(event.candidate))
          this.#deps.report({ type: "localCandidate", candidate: event.candidate, mid: event.mid });
        return;
      case "unsteady":
        this.#deps.report({ type: "unsteady" });
        return;
      case "ended":
        this.#lose(END_REASONS[event.reason]);
        return;
      case "channelOpen":
        this.#onChannelOpen(event.channel);
        return;
      case "channelClosed":
      case "channelError":
        this.#lose("connection_closed");
        return;
      case "message":
        this.#liveness.heard();
        if (event.bytes === null) {
          this.#lose("bad_frame");
          return;
        }
        if (event.channel === "control") this.#onControlBytes(event.bytes);
        else this.#onOwnBulk(event.bytes.subarray(0, BULK_HEADER_BYTES), event.bytes.subarray(BULK_HEADER_BYTES));
        return;
      case "frame":
        this.#liveness.heard();
        this.#onOwnBulk(event.head, event.payload);
        return;
      case "refused":
        this.#lose(event.reason);
        return;
      case "queueLow":
        if (event.channel === "bulk") this.#onQueueLow();
        return;
      case "unexpectedChannel":
        this.#unexpectedChannels += 1;
        if (this.#unexpectedChannels > UNEXPECTED_CHANNELS_MAX) this.#lose("unexpected_channels");
        return;
      default:
        assertNever(event, "rtc event");
    }
  }

  #onChannelOpen(channel: LinkChannel): void {
    if (this.#stage.name !== "opening") return;
    const open = new Set(this.#stage.open).add(channel);
    this.#stage = { name: "opening", open };
    if (open.size < 2) return;
    this.#measurePath();
    this.#deps.report({ type: "channelsOpen" });
  }

  #onControlBytes(bytes: Uint8Array<ArrayBuffer>): void {
    if (!this.#controlBudget.take(bytes.length, this.#deps.env.clock.monotonicMs())) {
      this.#lose("control_flood");
      return;
    }
    const message = decodeControl(bytes);
    if (message.ok) {
      this.#onControl(message.value);
      return;
    }
    const { name } = this.#stage;
    if (message.error.type === "unknown_type" && (name === "open" || name === "closing")) this.#unknownMessages += 1;
    else this.#lose(message.error.type);
  }

  #onControl(message: ControlMessage): void {
    switch (this.#stage.name) {
      case "opening":
        // Its proof needs our hello, so nothing but its hello can be here already.
        if (this.#early.length > 0) {
          this.#lose("unexpected_message");
          return;
        }
        this.#early.push(message);
        return;
      case "handshaking":
        this.#onHandshake(this.#stage.handshake, message);
        return;
      case "open":
      case "closing":
        this.#onOpenControl(message);
        return;
      case "closed":
        return;
      default:
        assertNever(this.#stage, "stage");
    }
  }

  #onHandshake(state: HandshakeState, message: ControlMessage): void {
    if (message.type === "hello") {
      this.#peerTakesStripes = message.capabilities.includes(STRIPES_CAPABILITY);
      this.#peerRunId = message.runId ?? null;
    }
    const [handshake, proof] = stepHandshake(state, message, this.#deps.keys);
    if (handshake.step === "refused") {
      this.#lose(handshake.reason);
      return;
    }
    if (proof !== null) this.#sendControl(proof);
    // Sending can fail and close the connection.
    if (this.#stage.name !== "handshaking") return;
    if (handshake.step !== "proven") {
      this.#stage = { name: "handshaking", handshake };
      return;
    }
    this.#stage = { name: "open", confirmed: false };
    this.#measurePath();
    if (this.#deps.canStripe === true) this.#stripes = this.#newStripes();
    this.#sendControl({ type: "credit", grantedBytes: this.#credit.open() });
    this.#deps.report({ type: "proven" });
    this.#liveness.start();
  }

  #onOpenControl(message: ControlMessage): void {
    if (this.#stage.name === "open" && !this.#stage.confirmed) {
      this.#stage = { name: "open", confirmed: true };
      this.#deps.report({ type: "confirmed" });
    }
    switch (message.type) {
      case "hello":
      case "proof":
        this.#lose("unexpected_message");
        return;
      case "ping":
        this.#sendControl({ type: "pong", id: message.id });
        return;
      case "pong":
        this.#onPong(message.id);
        return;
      case "credit":
        if (this.#gate.credit(message.grantedBytes, this.#queuedBytes())) this.#report({ type: "drained" });
        return;
      case "stripe":
        this.#stripes?.message(message);
        return;
      case "stripeAck":
        this.#stripes?.acked(message);
        return;
      case "fin":
        this.#onFin(message);
        return;
      case "finAck":
        this.#onFinAck(message);
        return;
      default:
        if (!this.#lanes.message(message)) this.#lose("receive_overflow");
    }
  }

  /** Further associations of this connection, which carry bulk frames like its own. */
  #newStripes(): Stripes {
    const stripes = new Stripes({
      clock: this.#deps.env.clock,
      driver: this.#deps.driver,
      options: { ...this.#deps.rtc, iceServers: this.#negotiation.iceServers },
      admits: (candidate) => this.#deps.admits(candidate),
      path: () => this.#candidates.facts.path,
      isOpen: () => this.#stage.name === "open",
      send: (message) => void this.#sendControl(message),
      onFrame: (head, payload) => {
        this.#liveness.heard();
        this.#onBulk(head, payload);
      },
      onQueueLow: () => this.#onQueueLow(),
      onRoom: () => this.#report({ type: "drained" }),
      lose: (reason) => {
        // While it says goodbye the counts of FIN tell whether something is missing.
        if (this.#stage.name !== "closing" || reason !== "stripe_lost") this.#lose(reason);
      },
    });
    if (this.#peerTakesStripes) stripes.understood();
    return stripes;
  }

  #onQueueLow(): void {
    if (this.#gate.queueLow(this.#queuedBytes())) this.#report({ type: "drained" });
  }

  #onOwnBulk(head: Bytes, payload: Payload): void {
    this.#stripes?.arrived(head.length + payload.byteLength);
    this.#onBulk(head, payload);
  }

  #onBulk(head: Bytes, payload: Payload): void {
    const { name } = this.#stage;
    const bytes = head.length + payload.byteLength;
    if (name !== "open" && name !== "closing") {
      this.#lose("unexpected_message");
      return;
    }
    if (!this.#credit.take(bytes)) {
      this.#lose("credit_exceeded");
      return;
    }
    const frame = decodeBulkHead(head, payload);
    if (!frame.ok) {
      this.#lose(frame.error.type);
      return;
    }
    if (!this.#lanes.bulk(frame.value, bytes)) this.#lose("receive_overflow");
    else if (this.#stage.name === "closing") this.#stage.closing.check();
  }

  /** Of a connection that is already closed nothing is reported, also when a report before closed it. */
  #report(report: ConnectionReport): void {
    if (this.#stage.name === "open" || (this.#stage.name === "closing" && report.type !== "drained"))
      this.#deps.report(report);
  }

  #startClosing(reason: string): void {
    this.#liveness.dispose();
    const closing = new Closing(
      {
        clock: this.#deps.env.clock,
        moved: () => `${this.#rtc?.bytesReceived() ?? 0} ${this.#queuedBytes()} ${this.#credit.receivedBytes}`,
        receivedBytes: () => this.#credit.receivedBytes,
        sendPing: () => void this.#sendControl({ type: "ping", id: 0 }),
        sendFinAck: () => this.#sendControl({ type: "finAck", bulkBytes: this.#gate.sentBytes }),
        flush: () => this.#lanes.flush(),
        close: () => this.close(),
      },
      reason === REPLACED,
    );
    this.#stage = { name: "closing", closing };
  }

  /** It says goodbye and nobody waits for it longer than so many milliseconds. */
  hurry(patienceMs: number): void {
    if (this.#stage.name === "closing") this.#stage.closing.hurry(patienceMs);
  }

  #onFin(fin: ControlOf<"fin">): void {
    if (this.#stage.name === "open") {
      this.#startClosing(fin.reason);
      this.#deps.report({ type: "peerFin" });
    }
    if (this.#stage.name === "closing") this.#stage.closing.fin(fin.bulkBytes);
  }

  #onFinAck(ack: ControlOf<"finAck">): void {
    if (this.#stage.name === "closing") this.#stage.closing.finAck(ack.bulkBytes);
    else this.#lose("unexpected_message");
  }

  #onPong(id: number): void {
    if (!this.#liveness.pong(id)) return;
    this.#stripes?.measured(this.#liveness.rttMs ?? 0);
    this.#measurePath();
    this.#report({ type: "measured" });
  }

  #measurePath(): void {
    this.#candidates.measure(this.#rtc?.selectedPair() ?? null);
  }

  #queuedBytes(): number {
    return (this.#rtc?.bufferedAmount("bulk") ?? 0) + (this.#stripes?.queuedBytes() ?? 0);
  }

  #sendControl(message: ControlMessage): boolean {
    const bytes = encodeControl(message);
    assert(bytes.length <= CONTROL_HEADER_BYTES + CONTROL_MESSAGE_BYTES_MAX, "a control message must fit its bound");
    if ((this.#rtc?.bufferedAmount("control") ?? 0) + bytes.length > CONTROL_QUEUED_BYTES_MAX) {
      this.#lose("peer_stalled");
      return false;
    }
    if (this.#rtc?.send("control", bytes).ok === true) return true;
    this.#lose("send_failed");
    return false;
  }
}
