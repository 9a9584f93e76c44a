import type { Bytes } from "#shared/base/bytes.ts";
import type { Disposable } from "#shared/base/disposable.ts";
import type { UserId } from "#shared/base/ids.ts";
import type { Result } from "#shared/base/result.ts";
import type { HeldFrame } from "#shared/wire/frame.ts";
import type { CandidateEnd } from "./sdp.ts";

/**
 * What carries a link: two reliable channels to one peer, `control` in order and `bulk` in any order. There are two kinds,
 * WebRTC (`driver.ts`) and the rendezvous server's relay (`relay-driver.ts`), and a link uses both alike:
 *
 * 1. One side calls `createOffer`, and its description goes to the peer inside a Signal ciphertext; the peer calls
 *    `acceptOffer`, and its description comes back to `acceptAnswer`. Candidates are WebRTC's alone.
 * 2. `channelOpen` comes once for each channel, and then messages pass.
 * 3. It ends with `ended` (or by `close`, after which nothing is reported), and is never used again.
 *
 * Every description names one SHA-256 fingerprint (`a=fingerprint:`), which `remoteFingerprint` repeats for the end that
 * was really met. The proof of identity covers both.
 */
export type LinkChannel = "control" | "bulk";

export type TransportEvent =
  | { readonly type: "localDescription"; readonly kind: "offer" | "answer"; readonly sdp: string }
  | { readonly type: "localCandidate"; readonly candidate: string; readonly mid: string }
  /**
   * Connection for good at its end. `flooded`: more came than its receiver got to, and more than flow control allows. `detail`
   * is a reason of the relay's.
   */
  | { readonly type: "ended"; readonly reason: "failed" | "closed" | "flooded"; readonly detail?: string }
  /** It has lost its path and looks for another (ICE `disconnected`): it can recover, or end. */
  | { readonly type: "unsteady" }
  | { readonly type: "channelOpen"; readonly channel: LinkChannel }
  | { readonly type: "channelClosed"; readonly channel: LinkChannel }
  | { readonly type: "channelError"; readonly channel: LinkChannel }
  /** `bytes` owns its buffer from first to last byte, so it can be transferred to a worker. Null: the peer sent text. */
  | { readonly type: "message"; readonly channel: LinkChannel; readonly bytes: Bytes | null }
  /** A message on `bulk` of which only the first bytes are here, those of a frame's header. */
  | { readonly type: "frame"; readonly head: Bytes; readonly payload: HeldFrame }
  /** A call that could not be answered at once failed. */
  | { readonly type: "refused"; readonly reason: "rtc_failed" | "bad_description" | "send_failed" }
  /** The send queue of the channel fell to its low mark. It may have grown again: look at `bufferedAmount`. */
  | { readonly type: "queueLow"; readonly channel: LinkChannel }
  | { readonly type: "unexpectedChannel" };

export type TransportError = { type: "rtc_failed" | "relay_failed"; message: string };

export interface LinkTransport {
  /** Makes the offer, which comes as `localDescription`. */
  createOffer(): Result<void, TransportError>;
  /** Sets the offer and makes the answer, which comes as `localDescription`. */
  acceptOffer(description: string): Result<void, TransportError>;
  acceptAnswer(description: string): Result<void, TransportError>;
  addRemoteCandidate(candidate: string, mid: string): Result<void, TransportError>;
  /** Copies `bytes`. Queues without limit: look at `bufferedAmount` before. */
  send(channel: LinkChannel, bytes: Uint8Array): Result<void, TransportError>;
  /**
   * Sends a frame that is held where the connection is, once; `head` replaces its first bytes. Only a transport whose
   * received frames come as `frame` has it.
   */
  readonly sendHeld?: (frame: HeldFrame & { readonly head: Bytes }) => Result<void, TransportError>;
  bufferedAmount(channel: LinkChannel): number;
  /** Of the certificate or key that the peer really used; null as long as there is none. */
  remoteFingerprint(): string | null;
  /** Of the relay both ends are of type `relay`. */
  selectedPair(): { local: CandidateEnd; remote: CandidateEnd } | null;
  /** Grows also while a large message is only half here. */
  bytesReceived(): number;
  /** Idempotent. No event comes after it. What is still queued is lost: end the conversation first. */
  close(): void;
}

export interface TransportOptions {
  /** stun:host:port and turn:user:pass@host:port; none means direct and local paths only. */
  readonly iceServers: readonly string[];
  /**
   * Bytes of one SCTP packet. Undefined leaves the library's 1280, which passes everywhere. A larger one (4000 doubles
   * the speed over loopback) is lost silently on any path that does not carry it, because there is no path MTU discovery.
   */
  readonly mtu?: number | undefined;
  readonly bindAddress?: string | undefined;
  /** `queueLow` of the bulk channel comes when its queue falls to this. */
  readonly bulkLowBytes: number;
}

/** Makes transports of one kind. The relay looks at no option but `bulkLowBytes`. */
export interface TransportDriver extends Disposable {
  open(options: TransportOptions, onEvent: (event: TransportEvent) => void): Result<LinkTransport, TransportError>;
}

/** The relay needs to know who the peer is; disposing what `toward` gave ends only the connections to that peer. */
export interface RelayDriver extends Disposable {
  toward(peer: UserId): TransportDriver;
}

export const RELAY_MARK = "a=weir-relay:1";

/** Which kind of transport an offer or an answer belongs to: what is not the relay's is WebRTC's. */
export const isRelayDescription = (description: string): boolean => description.split("\r\n", 3).includes(RELAY_MARK);
