import type { Bytes } from "#shared/base/bytes.ts";
import { type Disposable, toDisposable } from "#shared/base/disposable.ts";
import type { RelayId, UserId } from "#shared/base/ids.ts";
import type { Result } from "#shared/base/result.ts";
import { decodeRelayFrame, encodeRelayFrame, type RelayAck } from "#shared/rendezvous/relay.ts";
import type { Signaling } from "./signaling.ts";

/** What one end of a relay hears. Nothing after `closed`, and nothing after its own `close`. */
export interface RelayListener {
  /** The server knows of it. */
  opened(): void;
  /** Both sides are there, and this much may have been sent in all (`relayCost`). Only ever grows. */
  credit(grantedBytes: number): void;
  /** A view that is only good during the call. */
  frame(sealed: Uint8Array): void;
  /** It is over: the type of a refusal, the server's reason, or `server_lost`. */
  closed(reason: string): void;
}

/** One end of a relay. */
export interface RelayLine {
  /** Only within the credit: whoever sends more loses the relay. */
  send(sealed: Uint8Array): void;
  /** Tells how much has been taken in, in all (`relayCost`): that is what gives the other side new credit. */
  taken(takenBytes: number): void;
  close(): void;
}

/** The relay of the rendezvous server, for pairs that reach each other in no other way. */
export interface RelayPort {
  open(relayId: RelayId, to: UserId, listener: RelayListener): RelayLine;
  accept(relayId: RelayId, from: UserId, listener: RelayListener): RelayLine;
}

export interface RelaySender {
  relay(frame: Bytes): void;
  relayAck(ack: RelayAck): void;
}

/** The relays of this device. All of them end with the connection to the server; links make new ones. */
export class RelayLines implements RelayPort, Disposable {
  readonly #request: Signaling["request"];
  readonly #countStray: () => void;
  readonly #listeners = new Map<RelayId, RelayListener>();
  #sender: RelaySender | null = null;

  constructor(request: Signaling["request"], countStray: () => void) {
    this.#request = request;
    this.#countStray = countStray;
  }

  open(relayId: RelayId, to: UserId, listener: RelayListener): RelayLine {
    return this.#line(relayId, listener, this.#request("relay.open", { relayId, to }));
  }

  accept(relayId: RelayId, from: UserId, listener: RelayListener): RelayLine {
    return this.#line(relayId, listener, this.#request("relay.accept", { relayId, from }));
  }

  connected(sender: RelaySender): void {
    this.#sender = sender;
  }

  lost(): void {
    this.#sender = null;
    for (const relayId of [...this.#listeners.keys()]) this.closed(relayId, "server_lost");
  }

  credit(relayId: RelayId, grantedBytes: number): void {
    const listener = this.#listeners.get(relayId);
    if (listener === undefined) this.#countStray();
    else listener.credit(grantedBytes);
  }

  closed(relayId: RelayId, reason: string): void {
    const listener = this.#listeners.get(relayId);
    if (listener === undefined) this.#countStray();
    this.#listeners.delete(relayId);
    listener?.closed(reason);
  }

  /** False when it is no frame at all. */
  frame(raw: unknown): boolean {
    const frame = decodeRelayFrame(raw);
    if (!frame.ok) return false;
    const listener = this.#listeners.get(frame.value.relayId);
    if (listener === undefined) this.#countStray();
    else listener.frame(frame.value.sealed);
    return true;
  }

  dispose(): void {
    this.lost();
  }

  #line(relayId: RelayId, listener: RelayListener, asked: Promise<Result<unknown>>): RelayLine {
    this.#listeners.set(relayId, listener);
    const isCurrent = (): boolean => this.#listeners.get(relayId) === listener;
    void asked.then((answer) => {
      if (isCurrent()) {
        if (answer.ok) listener.opened();
        else this.closed(relayId, answer.error.type);
      } else if (answer.ok && this.#sender !== null) {
        // The connection broke meanwhile, and the request went again over the next one.
        void this.#request("relay.close", { relayId });
      }
    });
    const end = toDisposable(() => {
      if (!isCurrent()) return;
      this.#listeners.delete(relayId);
      if (this.#sender !== null) void this.#request("relay.close", { relayId });
    });
    return {
      send: (sealed) => {
        if (isCurrent()) this.#sender?.relay(encodeRelayFrame(relayId, sealed));
      },
      taken: (takenBytes) => {
        if (isCurrent()) this.#sender?.relayAck({ relayId, takenBytes });
      },
      close: () => end.dispose(),
    };
  }
}
