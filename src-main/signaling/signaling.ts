import type { Disposable } from "#shared/base/disposable.ts";
import type { Event } from "#shared/base/emitter.ts";
import type { EnvelopeId, FileId, Generation, UserId } from "#shared/base/ids.ts";
import type { Result } from "#shared/base/result.ts";
import type { ServerView } from "#shared/ipc/views.ts";
import type { Push, RequestInput, RequestName, RequestOutput, Sealed } from "#shared/rendezvous/protocol.ts";
import type { RelayPort } from "./relay-lines.ts";

export type EnvelopePush = Extract<Push, { name: "envelope" }>["value"];

/**
 * The connection to the rendezvous server. Every enable makes a new generation; results and pushes of an older one are
 * dropped and counted. Requests wait for the connection up to SERVER_REQUEST_TIMEOUT_MS, are retried with the same
 * idempotency key over a reconnect, and end with a typed error.
 */
export interface Signaling extends Disposable {
  readonly state: ServerView;
  readonly generation: Generation;
  /** Which server the last login of this run was at, whatever its address; known before `state` is `connected`. */
  readonly serverId: string | null;
  /** The server's clock by the last login of this run, counted on; null before one. The server is not trusted with it. */
  readonly serverTimeMs: number | null;
  readonly onStateChanged: Event<ServerView>;
  /** Logged in on a fresh connection: publish keys, watch presence, flush outboxes. */
  readonly onConnected: Event<{ generation: Generation }>;
  readonly onSignal: Event<{ from: UserId; sealed: Sealed; generation: Generation }>;
  readonly onPresence: Event<{ userId: UserId; online: boolean }>;
  readonly onKeysLow: Event<{ oneTimeEc: number; oneTimeKyber: number }>;
  /** The server says that the share list of a file has grown. */
  readonly onShareChanged: Event<{ fileId: FileId; version: number }>;

  /** The server says that somebody confirmed something about a file. */
  readonly onReceiptAdded: Event<{ fileId: FileId }>;

  /** Connects, and reconnects with jittered backoff until `disable`. Enabling with another URL replaces the connection and ends its requests. */
  enable(url: string): void;
  /** Requests that wait end at once with `server_unreachable`, and so does every new one until `enable`. */
  disable(): void;

  request<Name extends RequestName>(name: Name, input: RequestInput<Name>): Promise<Result<RequestOutput<Name>>>;

  /**
   * STUN and TURN servers for a link (`stun:host:port`, `turn:user:password@host:port`), from memory most of the time. An
   * error means that there are none to be had now; a link does without.
   */
  iceServers(): Promise<Result<readonly string[]>>;
  /** The server's relay; its lines end with the connection. */
  readonly relay: RelayPort;

  /**
   * The one consumer of mailbox envelopes, called one at a time in order. Resolving with "ack" (only once it is durable)
   * deletes the envelope at the server; "retry" keeps it there together with the sender's later ones. They come again
   * after a rest that grows with each failure, with the next connection, or after `askAgain`.
   */
  setEnvelopeHandler(handler: (envelope: EnvelopePush) => Promise<"ack" | "retry">): void;
  /** What made the handler answer "retry" to this sender's mail may be gone. */
  askAgain(from: UserId): void;
}

export interface SignalingIdentity {
  readonly userId: UserId;
  readonly deviceId: number;
  readonly accountKey: Uint8Array<ArrayBuffer>;
  sign(bytes: Uint8Array): Uint8Array<ArrayBuffer>;
  newRequestKey(): EnvelopeId;
}
