import { Emitter } from "#shared/base/emitter.ts";
import type { Generation, UserId } from "#shared/base/ids.ts";
import { RECEIVE_CREDIT_BYTES, SEND_QUEUED_BYTES_MAX } from "#shared/base/limits.ts";
import type { LinkView } from "#shared/ipc/views.ts";
import { type BulkFrame, bytesOf, decodeBulkFrame } from "#shared/wire/frame.ts";
import type { AppMessage, Links } from "../../src-main/links/links.ts";

/** What happens to a frame under way: usually one copy, but it may be changed, doubled, or lost with its link. */
export type Tamper = (frame: Uint8Array<ArrayBuffer>) => Uint8Array<ArrayBuffer>[];

interface Side {
  readonly self: UserId;
  readonly changed: Emitter<LinkView>;
  readonly message: Emitter<{ peer: UserId; generation: Generation; message: AppMessage }>;
  readonly bulk: Emitter<{ peer: UserId; generation: Generation; frame: BulkFrame; bytes: number }>;
  readonly drained: Emitter<{ peer: UserId; generation: Generation }>;
  readonly replaced: Emitter<{ peer: UserId; from: Generation; to: Generation }>;
  readonly left: Emitter<{ peer: UserId; generation: Generation; complete: boolean }>;
  queue: { readonly generation: Generation; readonly bytes: Uint8Array<ArrayBuffer> }[];
  queuedBytes: number;
  wasFull: boolean;
  /** Bytes handed to the application and not yet released. */
  heldBytes: number;
}

/**
 * Two ends of one link in memory, with the flow control of a real one: a bounded send queue, and a receiver that gets no
 * more than its credit before it releases. The link can be cut and joined again; every join is a new generation.
 */
export class LinksPair {
  readonly a: Links;
  readonly b: Links;
  readonly errors: unknown[] = [];
  tamper: Tamper = (frame) => [frame];
  /** Control messages vanish, as on a link that is dead and not yet known to be. */
  losesControl = false;
  /** Called for every control message that is delivered. */
  onControl: (from: UserId, message: AppMessage) => void = () => undefined;
  #generation = 0;
  #connected = false;
  /** What was received up to here is not counted any more. */
  #cutAt = 0;
  /** Replaced, and still delivering. */
  readonly #leaving = new Set<Generation>();
  readonly #sides: readonly [Side, Side];

  constructor(a: UserId, b: UserId) {
    this.#sides = [this.#side(a), this.#side(b)];
    this.a = this.#links(this.#sides[0], this.#sides[1]);
    this.b = this.#links(this.#sides[1], this.#sides[0]);
  }

  connect(): void {
    this.#generation += 1;
    this.#connected = true;
    this.#tell();
  }

  /** Another link takes over in order; what is on its way over the old one still arrives, until `endReplaced`. */
  replace(): void {
    const from = this.#generation;
    const to = from + 1;
    this.#leaving.add(from);
    this.#generation = to;
    const [a, b] = this.#sides;
    a.replaced.emit({ peer: b.self, from, to });
    b.replaced.emit({ peer: a.self, from, to });
    this.#tell();
  }

  /** The replaced links are gone: with everything delivered, or with the loss of what was on its way. */
  endReplaced(how: "complete" | "broken"): void {
    const [a, b] = this.#sides;
    for (const generation of this.#leaving) {
      if (how === "complete")
        for (const [from, to] of [[a, b] as const, [b, a] as const]) this.#flush(from, to, generation);
      this.#leaving.delete(generation);
      for (const side of this.#sides) side.queue = side.queue.filter((sent) => sent.generation !== generation);
      for (const [side, peer] of [[a, b] as const, [b, a] as const])
        side.left.emit({ peer: peer.self, generation, complete: how === "complete" });
    }
  }

  cut(): void {
    this.#connected = false;
    this.#cutAt = this.#generation;
    this.#leaving.clear();
    for (const side of this.#sides) {
      side.queue = [];
      side.queuedBytes = 0;
      side.wasFull = false;
      side.heldBytes = 0;
    }
    this.#tell();
  }

  /** Bytes that somebody received and never released. */
  get heldBytes(): number {
    return this.#sides[0].heldBytes + this.#sides[1].heldBytes;
  }

  #tell(): void {
    const [a, b] = this.#sides;
    a.changed.emit(this.#view(b.self));
    b.changed.emit(this.#view(a.self));
  }

  #side(self: UserId): Side {
    const onError = (error: unknown): void => {
      this.errors.push(error);
    };
    return {
      self,
      changed: new Emitter(onError),
      message: new Emitter(onError),
      bulk: new Emitter(onError),
      drained: new Emitter(onError),
      replaced: new Emitter(onError),
      left: new Emitter(onError),
      queue: [],
      queuedBytes: 0,
      wasFull: false,
      heldBytes: 0,
    };
  }

  #view(peer: UserId): LinkView {
    const state = this.#connected ? "connected" : "disconnected";
    return { peerId: peer, state, generation: this.#generation, path: "lan", rttMs: 0, reason: null, staleEvents: 0 };
  }

  #links(own: Side, other: Side): Links {
    const isCurrent = (generation: Generation): boolean => this.#connected && generation === this.#generation;
    return {
      list: () => (this.#generation === 0 ? [] : [this.#view(other.self)]),
      view: () => this.#view(other.self),
      onChanged: own.changed.event,
      onMessage: own.message.event,
      onBulk: own.bulk.event,
      onDrained: own.drained.event,
      onReplaced: own.replaced.event,
      onLeft: own.left.event,
      enable: () => undefined,
      disable: async () => this.cut(),
      connect: () => undefined,
      disconnect: async () => undefined,
      reconnect: () => undefined,
      presenceHint: () => undefined,
      send: (_peer, generation, message) => {
        if (!isCurrent(generation)) return false;
        setImmediate(() => {
          if (!this.#delivers(generation) || this.losesControl) return;
          this.onControl(own.self, message);
          other.message.emit({ peer: own.self, generation, message });
        });
        return true;
      },
      takesHeldFrames: () => false,
      sendBulk: (_peer, generation, frame) => {
        if (!isCurrent(generation)) return "closed";
        if (own.queuedBytes + frame.byteLength > SEND_QUEUED_BYTES_MAX) {
          own.wasFull = true;
          return "full";
        }
        // As the real driver does: the caller's buffer is copied.
        own.queue.push({ generation, bytes: new Uint8Array(bytesOf(frame)) });
        own.queuedBytes += frame.byteLength;
        setImmediate(() => this.#pump(own, other));
        return "sent";
      },
      release: (_peer, generation, bytes) => {
        if (generation <= this.#cutAt) return;
        own.heldBytes -= bytes;
        if (own.heldBytes < 0) this.errors.push(new Error("released more than was received"));
        setImmediate(() => this.#pump(other, own));
      },
      dispose: () => undefined,
    };
  }

  #delivers(generation: Generation): boolean {
    return this.#connected && (generation === this.#generation || this.#leaving.has(generation));
  }

  #pump(from: Side, to: Side): void {
    while (this.#connected && from.queue.length > 0 && to.heldBytes < RECEIVE_CREDIT_BYTES) this.#deliver(from, to, 0);
    if (this.#connected && from.wasFull && from.queuedBytes < SEND_QUEUED_BYTES_MAX / 4) {
      from.wasFull = false;
      from.drained.emit({ peer: to.self, generation: this.#generation });
    }
  }

  #flush(from: Side, to: Side, generation: Generation): void {
    for (let at = 0; this.#connected && at < from.queue.length; )
      if (from.queue[at]?.generation === generation) this.#deliver(from, to, at);
      else at += 1;
  }

  #deliver(from: Side, to: Side, at: number): void {
    const [sent] = from.queue.splice(at, 1);
    if (sent === undefined) return;
    from.queuedBytes -= sent.bytes.length;
    for (const bytes of this.tamper(sent.bytes)) {
      const frame = decodeBulkFrame(bytes);
      if (!frame.ok) {
        this.errors.push(new Error(frame.error.message));
        continue;
      }
      to.heldBytes += bytes.length;
      const { generation } = sent;
      to.bulk.emit({ peer: from.self, generation, frame: frame.value, bytes: bytes.length });
      if (!this.#delivers(generation)) return;
    }
  }
}
