import type { Bytes } from "#shared/base/bytes.ts";
import { type Disposable, DisposableStore } from "#shared/base/disposable.ts";
import type { Clock, Log, TimeMs } from "#shared/base/env.ts";
import type { Generation, UserId } from "#shared/base/ids.ts";
import { SIGNAL_QUEUE_MAX } from "#shared/base/limits.ts";
import { messageOf } from "#shared/base/result.ts";
import type { LinkState } from "#shared/ipc/views.ts";
import type { Sealed } from "#shared/rendezvous/protocol.ts";
import { decodeContent, encodeContent, type LinkSignal } from "#shared/wire/content.ts";
import type { Sessions } from "../crypto/sessions.ts";
import type { Signaling } from "../signaling/signaling.ts";
import type { CandidateDirectory } from "./candidate-directory.ts";
import { LeftSignals } from "./left-signals.ts";

/**
 * Link signals in and out, as Signal ciphertexts: the server sees neither SDP nor candidates. Only for peers that
 * `mayLink` allows, asked again after every wait. Signals of one peer keep their order up to the server, and no more than
 * SIGNAL_QUEUE_MAX of them wait in each direction. What the server cannot deliver may go by its directory (left-signals.ts).
 */
export interface SignalEvent {
  readonly peer: UserId;
  readonly signal: LinkSignal;
  /** How the link to this peer stood when the signal arrived. */
  readonly linkState: LinkState;
  /** Of the enable in which it arrived, and of the connection to the server that brought it; null from the directory. */
  readonly generation: Generation;
  readonly serverGeneration: Generation | null;
  readonly atMs: TimeMs;
}

export interface SignalPortDeps {
  readonly clock: Clock;
  readonly log: Log;
  /** Of the enable that this port belongs to: it ends with it, and whatever comes later is stale. */
  readonly generation: Generation;
  readonly signaling: Pick<Signaling, "request" | "onSignal">;
  readonly sessions: Pick<Sessions, "seal" | "open">;
  /** Null where contacts leave nothing for each other at the server. */
  readonly directory: CandidateDirectory | null;
  mayLink(peer: UserId): boolean;
  linkState(peer: UserId): LinkState;
  onSignal(event: SignalEvent): void;
  /** A signal that was opened, or sealed, only after this enable had ended. */
  onStale(peer: UserId): void;
  /** There is no session with the peer (`lost`), or not the one that it uses: nothing passes until it is repaired. */
  onBroken(peer: UserId, lost: boolean): void;
}

export type SignalOutcome = "delivered" | "offline" | "failed";

export class SignalPort implements Disposable {
  readonly #deps: SignalPortDeps;
  readonly #owned = new DisposableStore();
  readonly #lines = new Map<string, { tail: Promise<unknown>; waiting: number }>();
  /** How often each peer came online. */
  readonly #hints = new Map<UserId, number>();
  readonly #left: LeftSignals | null;
  #dropped = 0;

  constructor(deps: SignalPortDeps) {
    this.#deps = deps;
    const { directory } = deps;
    this.#left = directory === null ? null : this.#owned.add(this.#leftSignals(directory));
    this.#owned.add(deps.signaling.onSignal(({ from, sealed, generation }) => this.#receive(from, sealed, generation)));
  }

  /** Signals that were refused, unreadable or too many. */
  get dropped(): number {
    return this.#dropped;
  }

  /**
   * `isCurrent` is asked when its turn has come: an old attempt's signals are not worth sealing. A peer that came online
   * while the server still called it offline gets the signal at once. Never rejects.
   */
  async send(peer: UserId, signal: LinkSignal, isCurrent: () => boolean): Promise<SignalOutcome> {
    const hints = this.#hintsOf(peer);
    const first = await this.#send(peer, signal, isCurrent);
    const cameOnline = first === "offline" && this.#hintsOf(peer) !== hints;
    const outcome = cameOnline ? await this.#send(peer, signal, isCurrent) : first;
    if (outcome !== "offline" || this.#owned.disposed || !this.#deps.mayLink(peer) || !isCurrent()) return outcome;
    return this.#left?.undelivered(peer, signal) ? "delivered" : "offline";
  }

  /** The server says that the peer is online now. */
  cameOnline(peer: UserId): void {
    this.#hints.set(peer, this.#hintsOf(peer) + 1);
  }

  #hintsOf(peer: UserId): number {
    return this.#hints.get(peer) ?? 0;
  }

  async #send(peer: UserId, signal: LinkSignal, isCurrent: () => boolean): Promise<SignalOutcome> {
    const { signaling, log } = this.#deps;
    const sealed = await this.#seal(peer, encodeContent({ kind: "link", signal }), isCurrent);
    if (sealed === null) return "failed";
    // Sealing took its time: the port may have ended, the peer been blocked, the attempt been given up.
    if (this.#owned.disposed) this.#deps.onStale(peer);
    if (this.#owned.disposed || !this.#deps.mayLink(peer) || !isCurrent()) return "failed";
    try {
      // Outside the line: the next signal need not wait for the server's answer to this one.
      const sent = await signaling.request("signal.send", { to: peer, sealed });
      if (sent.ok) return sent.value.delivered ? "delivered" : "offline";
      log.debug("signal not sent", { peer, type: signal.type, error: sent.error.type });
    } catch (error) {
      log.error("signaling request threw", { reason: messageOf(error) });
    }
    return "failed";
  }

  #seal(peer: UserId, content: Bytes, isCurrent: () => boolean): Promise<Sealed | null> {
    return this.#inLine(`out ${peer}`, async () => {
      if (this.#owned.disposed || !this.#deps.mayLink(peer) || !isCurrent()) return null;
      const result = await this.#deps.sessions.seal(peer, content, (ciphertext) => ciphertext);
      if (result.ok) return result.value;
      this.#deps.log.warn("signal not sealed", { peer, error: result.error.type });
      if (result.error.type === "no_session") this.#deps.onBroken(peer, true);
      return null;
    });
  }

  #leftSignals(directory: CandidateDirectory): LeftSignals {
    const { clock, log, generation, sessions } = this.#deps;
    return new LeftSignals({
      ...{ clock, log, directory },
      mayLink: (peer) => this.#deps.mayLink(peer),
      isConnected: (peer) => this.#deps.linkState(peer) === "connected",
      seal: (peer, plaintext) => this.#seal(peer, plaintext, () => true),
      open: (peer, sealed) =>
        this.#inLine(`in ${peer}`, async () => {
          // Anybody who can write there can make it unreadable: that says nothing about the session.
          const opened = await sessions.open(peer, sealed, (plaintext) => plaintext);
          return opened.ok ? opened.value : null;
        }),
      onSignal: (peer, signal) => {
        const linkState = this.#deps.linkState(peer);
        this.#deps.onSignal({ peer, signal, linkState, generation, serverGeneration: null, atMs: clock.now() });
      },
    });
  }

  #receive(from: UserId, sealed: Sealed, serverGeneration: Generation): void {
    if (!this.#deps.mayLink(from)) {
      this.#dropped += 1;
      return;
    }
    const { clock, generation } = this.#deps;
    const arrived = {
      peer: from,
      linkState: this.#deps.linkState(from),
      generation,
      serverGeneration,
      atMs: clock.now(),
    };
    void this.#inLine(`in ${from}`, async () => {
      const opened = await this.#deps.sessions.open(from, sealed, decodeContent);
      if (this.#owned.disposed) {
        this.#deps.onStale(from);
        return null;
      }
      const content = opened.ok && opened.value.ok ? opened.value.value : null;
      if (content?.kind === "link" && this.#deps.mayLink(from))
        this.#deps.onSignal({ ...arrived, signal: content.signal });
      else {
        this.#dropped += 1;
        const error = !opened.ok ? opened.error.type : opened.value.ok ? "not_a_signal" : opened.value.error.type;
        this.#deps.log.warn("signal dropped", { peer: from, error });
        // A signal may be delivered twice (they have no ids), so one that was opened before means nothing.
        if (error === "no_session" || error === "undecryptable") this.#deps.onBroken(from, error === "no_session");
      }
      return null;
    });
  }

  /** One at a time per line, in order; null when the line is full or the work threw. */
  async #inLine<T>(key: string, work: () => Promise<T | null>): Promise<T | null> {
    const line = this.#lines.get(key) ?? { tail: Promise.resolve(), waiting: 0 };
    if (line.waiting >= SIGNAL_QUEUE_MAX) {
      this.#dropped += 1;
      return null;
    }
    this.#lines.set(key, line);
    line.waiting += 1;
    const result = line.tail.then(work).catch((error: unknown) => {
      this.#deps.log.error("signal work failed", { reason: messageOf(error) });
      return null;
    });
    line.tail = result;
    const value = await result;
    line.waiting -= 1;
    if (line.waiting === 0) this.#lines.delete(key);
    return value;
  }

  dispose(): void {
    this.#owned.dispose();
  }
}
