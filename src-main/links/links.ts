import type { Disposable } from "#shared/base/disposable.ts";
import type { Event } from "#shared/base/emitter.ts";
import type { Generation, UserId } from "#shared/base/ids.ts";
import type { LinkReport, LinkView } from "#shared/ipc/views.ts";
import type { ControlMessage } from "#shared/wire/control.ts";
import type { BulkFrame, OutgoingFrame } from "#shared/wire/frame.ts";
import type { LinkRecording } from "./link-recorder.ts";

/** Control messages that links do not handle themselves; the others never leave them. */
export type AppMessage = Exclude<
  ControlMessage,
  { type: "hello" | "proof" | "ping" | "pong" | "credit" | "stripe" | "stripeAck" | "fin" | "finAck" }
>;

/**
 * Proven connections to peers. The one owner of node-datachannel; a connection manager with generation tokens and one
 * link machine per peer are behind it. Everything it emits carries the generation of the link it came from.
 */
export interface Links extends Disposable {
  list(): LinkView[];
  view(peer: UserId): LinkView;
  readonly onChanged: Event<LinkView>;
  readonly onMessage: Event<{ peer: UserId; generation: Generation; message: AppMessage }>;
  /**
   * A bulk frame. The receiver calls `release(peer, generation, bytes)` with the frame's whole size when it is done with
   * it (stored, or dropped): that is what renews the peer's receive credit.
   */
  readonly onBulk: Event<{ peer: UserId; generation: Generation; frame: BulkFrame; bytes: number }>;
  /** `sendBulk` said "full" before; now there is room again. */
  readonly onDrained: Event<{ peer: UserId; generation: Generation }>;
  /**
   * A proven link took over from one that stood and is being ended in order: what was sent over `from` still arrives over
   * it, under its generation, until `onLeft`. Comes right before `onChanged` tells of `to`.
   */
  readonly onReplaced: Event<{ peer: UserId; from: Generation; to: Generation }>;
  /** A replaced link is gone. `complete`: nothing that was on its way is lost. */
  readonly onLeft: Event<{ peer: UserId; generation: Generation; complete: boolean }>;

  /** Lets links be made at all (the user's switch and the app's start). Disabling closes every link with FIN, for whose answer it waits. */
  enable(): void;
  disable(patienceMs?: number): Promise<void>;
  /** Wants a link to this peer and keeps it up (backoff, new generations) until `disconnect`. Idempotent. */
  connect(peer: UserId): void;
  disconnect(peer: UserId): Promise<void>;
  /** Drops the current connection and makes a new generation at once. */
  reconnect(peer: UserId): void;
  /** The peer came online or went offline according to the rendezvous server: a hint to try now, never a verdict. */
  presenceHint(peer: UserId, online: boolean): void;

  /** False when there is no connected link of that generation. Control messages are small and never refused for being full. */
  send(peer: UserId, generation: Generation, message: AppMessage): boolean;
  /** Whether `sendBulk` takes frames that are held in the engine; otherwise their bytes must be here. */
  takesHeldFrames(peer: UserId, generation: Generation): boolean;
  /**
   * `frame` is a whole bulk frame with header. "full": nothing was taken, wait for `onDrained`. "closed": that link is gone.
   */
  sendBulk(peer: UserId, generation: Generation, frame: OutgoingFrame): "sent" | "full" | "closed";
  release(peer: UserId, generation: Generation, bytes: number): void;
}

/** What the rest of the program needs of links besides using them: the composition root and the commands. */
export interface LinkManager extends Links {
  /** Other addresses, another network, or this machine woke up: links get a fresh connection beside the one they have. */
  networkChanged(): void;
  /** Another network policy holds for this contact, or the contact was accepted: ways that are forbidden now end at once. */
  policyChanged(peer: UserId): void;
  /** What was tried with this peer, and what became of it. */
  report(peer: UserId): LinkReport;
  reports(): LinkReport[];
  /** The newest steps of all links, to run them again. */
  recording(): LinkRecording;
  /**
   * Makes a fresh connection beside the link, if there is one, and reports when it worked, or was given up, or after
   * LINK_TEST_TIMEOUT_MS.
   */
  test(peer: UserId): Promise<LinkReport>;
}
