import { assertNever } from "#shared/base/assert.ts";
import type { Log } from "#shared/base/env.ts";
import { ENGINE_SEEN_STEP_BYTES } from "#shared/base/limits.ts";
import { fail, messageOf, ok, type Result } from "#shared/base/result.ts";
import type { HeldFrame } from "#shared/wire/frame.ts";
import { eventCost, type Facts, type FromDriver, type ToDriver } from "./driver-protocol.ts";
import type {
  LinkChannel,
  LinkTransport,
  TransportDriver,
  TransportError,
  TransportEvent,
  TransportOptions,
} from "./transport.ts";

/** The way to the process of the driver. */
export interface DriverPort {
  /** False while that process is not there and none is starting: nothing can open then. */
  readonly isUp: boolean;
  readonly log: Pick<Log, "error">;
  post(message: ToDriver): void;
}

interface Remote {
  readonly onEvent: (event: TransportEvent) => void;
  readonly sent: Record<LinkChannel, number>;
  readonly drained: Record<LinkChannel, number>;
  facts: Facts;
  cost: number;
  told: number;
}

const NO_FACTS: Facts = { fingerprint: null, pair: null, bytesReceived: 0 };

/** Stands for the WebRTC driver of another process. What fails there after a call has returned comes as `refused`. */
export class RemoteDriver implements TransportDriver {
  readonly #port: DriverPort;
  readonly #open = new Map<number, Remote>();
  #next = 1;

  constructor(port: DriverPort) {
    this.#port = port;
  }

  open(options: TransportOptions, onEvent: (event: TransportEvent) => void): Result<LinkTransport, TransportError> {
    const port = this.#port;
    if (!port.isUp) return fail("rtc_failed", "The connection could not open: its process is being started again.");
    const c = this.#next++;
    const remote: Remote = {
      onEvent,
      sent: { control: 0, bulk: 0 },
      drained: { control: 0, bulk: 0 },
      facts: NO_FACTS,
      cost: 0,
      told: 0,
    };
    this.#open.set(c, remote);
    const post = (message: ToDriver): Result<void, TransportError> => {
      if (!this.#open.has(c)) return fail("rtc_failed", "The connection is gone.");
      port.post(message);
      return ok(undefined);
    };
    post({ type: "open", c, options });
    return ok({
      createOffer: () => post({ type: "offer", c }),
      acceptOffer: (sdp) => post({ type: "acceptOffer", c, sdp }),
      acceptAnswer: (sdp) => post({ type: "acceptAnswer", c, sdp }),
      addRemoteCandidate: (candidate, mid) => post({ type: "candidate", c, candidate, mid }),
      send(channel, bytes) {
        remote.sent[channel] += bytes.length;
        // The caller may fill its buffer again before this leaves.
        return post({ type: "send", c, channel, bytes: new Uint8Array(bytes) });
      },
      sendHeld({ frame, byteLength, head }: HeldFrame & { readonly head: Uint8Array<ArrayBuffer> }) {
        remote.sent.bulk += byteLength;
        return post({ type: "sendHeld", c, frame, head });
      },
      bufferedAmount: (channel) => remote.sent[channel] - remote.drained[channel],
      remoteFingerprint: () => remote.facts.fingerprint,
      selectedPair: () => remote.facts.pair,
      bytesReceived: () => remote.facts.bytesReceived,
      close: () => {
        if (!this.#open.delete(c)) return;
        // Frames that it received and nobody stores end with it, and those handed to the chunk worker leave with this turn.
        setImmediate(() => port.post({ type: "close", c }));
      },
    });
  }

  receive(message: FromDriver): void {
    const remote = this.#open.get(message.c);
    // Closed meanwhile; whatever it held ends with it.
    if (remote === undefined) return;
    switch (message.type) {
      case "event":
        this.#count(message.c, remote, eventCost(message.event));
        this.#tell(remote, message.event);
        return;
      case "drained":
        remote.drained[message.channel] = message.bytes;
        this.#tell(remote, { type: "queueLow", channel: message.channel });
        return;
      case "facts":
        remote.facts = message.facts;
        return;
      default:
        assertNever(message, "message of the driver");
    }
  }

  /** A handler that fails must not take other connections along. */
  #tell({ onEvent }: Remote, event: TransportEvent): void {
    try {
      onEvent(event);
    } catch (error) {
      this.#port.log.error("rtc event handler failed", { event: event.type, reason: messageOf(error) });
    }
  }

  #count(c: number, remote: Remote, cost: number): void {
    remote.cost += cost;
    if (remote.cost - remote.told < ENGINE_SEEN_STEP_BYTES) return;
    remote.told = remote.cost;
    this.#port.post({ type: "seen", c, cost: remote.cost });
  }

  /** The other process has ended, and every connection with it. */
  lost(): void {
    const ended = [...this.#open.values()];
    this.#open.clear();
    for (const remote of ended) this.#tell(remote, { type: "ended", reason: "failed" });
  }

  dispose(): void {
    for (const c of this.#open.keys()) this.#port.post({ type: "close", c });
    this.#open.clear();
  }
}
