import * as v from "valibot";
import { assertNever } from "#shared/base/assert.ts";
import type { Bytes } from "#shared/base/bytes.ts";
import { toBase64Url } from "#shared/base/bytes.ts";
import type { Env } from "#shared/base/env.ts";
import { type RelayId, RelayIdSchema, type UserId } from "#shared/base/ids.ts";
import { LINK_MESSAGE_BYTES_MAX, RELAY_CREDIT_STEP_BYTES, RELAY_WINDOW_BYTES } from "#shared/base/limits.ts";
import { fail, messageOf, ok } from "#shared/base/result.ts";
import { relayCost } from "#shared/rendezvous/relay.ts";
import type { RelayLine, RelayPort } from "../signaling/relay-lines.ts";
import {
  createRelayCipher,
  decodeRelayDescription,
  encodeRelayDescription,
  newHalf,
  PieceJoiner,
  RELAY_PIECE_BYTES,
  type RelayDescription,
  relayFingerprint,
  sealedBytes,
} from "./relay-cipher.ts";
import type {
  LinkChannel,
  LinkTransport,
  RelayDriver,
  TransportError,
  TransportEvent,
  TransportOptions,
} from "./transport.ts";

export interface RelayDriverDeps {
  readonly env: Env;
  readonly relay: RelayPort;
}

/** Links over the rendezvous server's relay, where nothing else passes; see transport.ts for what they have in common. */
export const createRelayDriver = ({ env, relay }: RelayDriverDeps): RelayDriver => {
  const all = new Set<RelayTransport>();
  let disposed = false;
  return {
    toward(peer) {
      const mine = new Set<RelayTransport>();
      return {
        open(options, onEvent) {
          if (disposed) return fail("relay_failed", "The connection could not open: Weir is shutting down.");
          const transport = new RelayTransport(env, relay, peer, options, onEvent, () => {
            all.delete(transport);
            mine.delete(transport);
          });
          all.add(transport);
          mine.add(transport);
          return ok(transport);
        },
        dispose() {
          for (const transport of [...mine]) transport.close();
        },
      };
    },
    dispose() {
      disposed = true;
      for (const transport of [...all]) transport.close();
    },
  };
};

type Ciphers = ReturnType<typeof createRelayCipher>;

/**
 *   fresh --createOffer--> offering --acceptAnswer--.
 *     '-----acceptOffer--> answering ---opened------+--> keyed, and open with the first credit
 *
 * and from everywhere to ended, which is told, and to closed.
 */
type Stage =
  | { readonly name: "fresh" }
  | { readonly name: "offering"; readonly line: RelayLine; readonly mine: RelayDescription }
  | { readonly name: "answering"; readonly line: RelayLine }
  | { readonly name: "keyed"; readonly line: RelayLine; readonly keys: Keys; readonly isOpen: boolean }
  | { readonly name: "ended" }
  | { readonly name: "closed" };

interface Keys {
  readonly ciphers: Ciphers;
  readonly remote: RelayDescription;
}

interface Queued {
  readonly bytes: Uint8Array;
  /** How much of it has been sent. */
  at: number;
}

const RELAY_END = { address: "", type: "relay" } as const;

class RelayTransport implements LinkTransport {
  readonly #env: Env;
  readonly #relay: RelayPort;
  readonly #peer: UserId;
  readonly #bulkLowBytes: number;
  readonly #onEvent: (event: TransportEvent) => void;
  readonly #onClosed: () => void;
  readonly #joiner = new PieceJoiner();
  readonly #queues: Record<LinkChannel, Queued[]> = { control: [], bulk: [] };
  readonly #queued: Record<LinkChannel, number> = { control: 0, bulk: 0 };
  #stage: Stage = { name: "fresh" };
  /** Frames that came before the answer that opens them; the other side's credit bounds them. */
  #early: Uint8Array[] = [];
  #earlyCost = 0;
  #events: TransportEvent[] = [];
  #granted = 0;
  #sent = 0;
  #taken = 0;
  #acknowledged = 0;
  #bytesReceived = 0;

  constructor(
    env: Env,
    relay: RelayPort,
    peer: UserId,
    options: TransportOptions,
    onEvent: (event: TransportEvent) => void,
    onClosed: () => void,
  ) {
    this.#env = env;
    this.#relay = relay;
    this.#peer = peer;
    this.#bulkLowBytes = options.bulkLowBytes;
    this.#onEvent = onEvent;
    this.#onClosed = onClosed;
  }

  createOffer() {
    if (this.#stage.name !== "fresh") return failed("make an offer");
    const { random } = this.#env;
    const mine = { relayId: newRelayId(random.bytes(16)), half: newHalf((length) => random.bytes(length)) };
    const line = this.#relay.open(mine.relayId, this.#peer, {
      ...this.#listener,
      // Not before: the other side's acceptance must find it at the server.
      opened: () => this.#describe(mine, "offer"),
    });
    this.#stage = { name: "offering", line, mine };
    return ok(undefined);
  }

  acceptOffer(description: string) {
    const offer = decodeRelayDescription(description);
    if (this.#stage.name !== "fresh" || !offer.ok) return failed("take the peer's description");
    const remote = offer.value;
    const mine = { relayId: remote.relayId, half: newHalf((length) => this.#env.random.bytes(length)) };
    const keys = { ciphers: createRelayCipher("answerer", remote, mine.half), remote };
    const line = this.#relay.accept(remote.relayId, this.#peer, {
      ...this.#listener,
      opened: () => {
        if (this.#stage.name !== "answering") return;
        this.#describe(mine, "answer");
        this.#key(line, keys);
      },
    });
    this.#stage = { name: "answering", line };
    return ok(undefined);
  }

  acceptAnswer(description: string) {
    const answer = decodeRelayDescription(description);
    const stage = this.#stage;
    if (stage.name !== "offering" || !answer.ok || answer.value.relayId !== stage.mine.relayId)
      return failed("take the peer's description");
    const { line, mine } = stage;
    this.#key(line, { ciphers: createRelayCipher("offerer", mine, answer.value.half), remote: answer.value });
    return ok(undefined);
  }

  /** The relay has none. */
  addRemoteCandidate() {
    return ok(undefined);
  }

  send(channel: LinkChannel, bytes: Uint8Array) {
    if (this.#stage.name !== "keyed" || !this.#stage.isOpen || bytes.length > LINK_MESSAGE_BYTES_MAX)
      return failed("send");
    this.#queues[channel].push({ bytes: new Uint8Array(bytes), at: 0 });
    this.#queued[channel] += bytes.length;
    this.#pump();
    return ok(undefined);
  }

  bufferedAmount(channel: LinkChannel): number {
    return this.#queued[channel];
  }

  remoteFingerprint(): string | null {
    return this.#stage.name === "keyed" ? relayFingerprint(this.#stage.keys.remote) : null;
  }

  selectedPair() {
    return this.#stage.name === "keyed" && this.#stage.isOpen ? { local: RELAY_END, remote: RELAY_END } : null;
  }

  bytesReceived(): number {
    return this.#bytesReceived;
  }

  close(): void {
    const stage = this.#stage;
    if (stage.name === "closed") return;
    this.#stage = { name: "closed" };
    if ("line" in stage) stage.line.close();
    this.#queues.control = [];
    this.#queues.bulk = [];
    this.#early = [];
    this.#events = [];
    this.#onClosed();
  }

  readonly #listener = {
    credit: (grantedBytes: number): void => this.#onCredit(grantedBytes),
    frame: (sealed: Uint8Array): void => this.#onFrame(sealed),
    closed: (reason: string): void => this.#onLineClosed(reason),
  };

  #describe(mine: RelayDescription, kind: "offer" | "answer"): void {
    this.#tell({ type: "localDescription", kind, sdp: encodeRelayDescription(mine) });
  }

  #key(line: RelayLine, keys: Keys): void {
    this.#stage = { name: "keyed", line, keys, isOpen: false };
    this.#openIfReady();
    const early = this.#early;
    this.#early = [];
    for (const sealed of early) this.#onFrame(sealed);
  }

  #openIfReady(): void {
    const stage = this.#stage;
    if (stage.name !== "keyed" || stage.isOpen || this.#granted === 0) return;
    this.#stage = { ...stage, isOpen: true };
    this.#tell({ type: "channelOpen", channel: "control" });
    this.#tell({ type: "channelOpen", channel: "bulk" });
  }

  #onCredit(grantedBytes: number): void {
    this.#granted = Math.max(this.#granted, grantedBytes);
    this.#openIfReady();
    this.#pump();
  }

  /** Control messages first: a pong must not wait behind a chunk. Each channel keeps its own order. */
  #pump(): void {
    const stage = this.#stage;
    if (stage.name !== "keyed") return;
    const wasLow = this.#queued.bulk <= this.#bulkLowBytes;
    for (;;) {
      const channel = this.#queues.control.length > 0 ? "control" : "bulk";
      const [next] = this.#queues[channel];
      if (next === undefined) break;
      const piece = next.bytes.subarray(next.at, next.at + RELAY_PIECE_BYTES);
      const cost = relayCost(sealedBytes(piece.length));
      if (this.#sent + cost > this.#granted) break;
      this.#sent += cost;
      next.at += piece.length;
      this.#queued[channel] -= piece.length;
      const last = next.at === next.bytes.length;
      if (last) this.#queues[channel].shift();
      stage.line.send(stage.keys.ciphers.sealer.seal({ channel, last, bytes: piece }));
    }
    if (!wasLow && this.#queued.bulk <= this.#bulkLowBytes) this.#tell({ type: "queueLow", channel: "bulk" });
  }

  #onFrame(sealed: Uint8Array): void {
    const stage = this.#stage;
    switch (stage.name) {
      case "offering":
      case "answering":
        this.#keepEarly(sealed);
        return;
      case "keyed":
        this.#take(stage.line, stage.keys.ciphers, sealed);
        return;
      case "fresh":
      case "ended":
      case "closed":
        return;
      default:
        assertNever(stage);
    }
  }

  #keepEarly(sealed: Uint8Array): void {
    this.#earlyCost += relayCost(sealed.length);
    if (this.#earlyCost > RELAY_WINDOW_BYTES) this.#fail("early_frames");
    else this.#early.push(new Uint8Array(sealed));
  }

  #take(line: RelayLine, { opener }: Ciphers, sealed: Uint8Array): void {
    const piece = opener.open(sealed);
    const message = piece === null ? "unopened" : this.#joiner.add(piece);
    if (piece === null || message === "unopened" || message === "too_large") {
      this.#fail("bad_frame");
      return;
    }
    this.#bytesReceived += sealed.length;
    if (message !== "more") this.#tell({ type: "message", channel: piece.channel, bytes: message });
    this.#taken += relayCost(sealed.length);
    if (this.#taken - this.#acknowledged < RELAY_CREDIT_STEP_BYTES) return;
    this.#acknowledged = this.#taken;
    line.taken(this.#taken);
  }

  #onLineClosed(detail: string): void {
    const stage = this.#stage;
    if (!("line" in stage)) return;
    this.#env.log.debug("relay ended", { peer: this.#peer, detail });
    this.#end(stage.name === "keyed" && stage.isOpen ? "closed" : "failed", detail);
  }

  #fail(detail: string): void {
    const stage = this.#stage;
    if (!("line" in stage)) return;
    this.#env.log.warn("relay given up", { peer: this.#peer, detail });
    stage.line.close();
    this.#end("failed", detail);
  }

  #end(reason: "failed" | "closed", detail: string): void {
    this.#stage = { name: "ended" };
    this.#early = [];
    this.#tell({ type: "ended", reason, detail });
  }

  /** Like the other driver, it reports from the outside: never in the middle of a caller's call. */
  #tell(event: TransportEvent): void {
    this.#events.push(event);
    if (this.#events.length === 1) queueMicrotask(() => this.#tellAll());
  }

  #tellAll(): void {
    for (let event = this.#events.shift(); event !== undefined; event = this.#events.shift()) {
      try {
        this.#onEvent(event);
      } catch (error) {
        this.#env.log.error("relay event handler failed", { event: event.type, reason: messageOf(error) });
      }
    }
  }
}

const newRelayId = (bytes: Bytes): RelayId => v.parse(RelayIdSchema, toBase64Url(bytes));

const failed = (what: string): { ok: false; error: TransportError } =>
  fail("relay_failed", `The connection over the server could not ${what}.`);
