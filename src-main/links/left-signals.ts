import { type Bytes, bytesEqual } from "#shared/base/bytes.ts";
import type { Disposable } from "#shared/base/disposable.ts";
import type { Clock, Log } from "#shared/base/env.ts";
import type { UserId } from "#shared/base/ids.ts";
import {
  DIRECTORY_CLOCK_SKEW_MS,
  DIRECTORY_VALUE_BYTES_MAX,
  LEFT_GATHER_MS,
  LEFT_LOOK_MS,
  LEFT_SIGNALS_MAX,
  LEFT_WATCH_MS,
  LEFT_WATCHES_MAX,
} from "#shared/base/limits.ts";
import { messageOf } from "#shared/base/result.ts";
import type { Sealed } from "#shared/rendezvous/protocol.ts";
import { decodeLeftSignals, encodeLeftSignals, type LinkSignal } from "#shared/wire/content.ts";
import type { CandidateDirectory } from "./candidate-directory.ts";
import { isRelayDescription } from "./transport.ts";

/**
 * The way of signals when none is delivered live: each of two contacts leaves its newest ones, sealed, at its own place in
 * the server's directory, and looks at the other's.
 *
 *   answerer   its `dial` was not delivered: leaves it, and looks for LEFT_WATCH_MS
 *   dialer     its `offer` was not delivered: looks as long; finds the `dial`, so somebody looks there too
 *   dialer     makes another offer and leaves it, with its candidates, because a live one still reaches nobody
 *   answerer   finds them and leaves answer and candidates
 *
 * An offer is left only for somebody who has left something within that time: for all others an attempt would be in vain.
 */
export interface LeftSignalsDeps {
  readonly clock: Clock;
  readonly log: Log;
  readonly directory: CandidateDirectory;
  mayLink(peer: UserId): boolean;
  isConnected(peer: UserId): boolean;
  /** Null when it cannot be sealed, or may not any more. */
  seal(peer: UserId, plaintext: Bytes): Promise<Sealed | null>;
  /** Null for what does not open, or was opened before. */
  open(peer: UserId, sealed: Sealed): Promise<Uint8Array | null>;
  onSignal(peer: UserId, signal: LinkSignal): void;
}

/** Signals that are known again; one that is forgotten and comes again is stale to the link machine. */
const TAKEN_MAX = 4 * LEFT_SIGNALS_MAX;

interface Place {
  /** What we leave: a `dial` alone, or a description and its candidates. */
  signals: readonly LinkSignal[];
  gathering: Disposable | null;
  /** The peer's value that was read last, and what of it was handed on. */
  seen: Bytes | null;
  readonly taken: Set<string>;
  looking: Disposable | null;
  lookUntilMs: number;
  /** Until when the peer is believed to look at our place. */
  looksUntilMs: number;
}

export class LeftSignals implements Disposable {
  readonly #deps: LeftSignalsDeps;
  readonly #places = new Map<UserId, Place>();
  #disposed = false;

  constructor(deps: LeftSignalsDeps) {
    this.#deps = deps;
  }

  /** A live signal did not reach the peer. Whether it goes this way instead. */
  undelivered(peer: UserId, signal: LinkSignal): boolean {
    const opens = signal.type === "dial" || signal.type === "offer";
    const place = opens ? this.#watch(peer) : this.#places.get(peer);
    if (place === undefined || place === null) return false;
    if (signal.type === "dial") {
      // The same again, while we still look, says nothing new.
      if (JSON.stringify(place.signals) !== JSON.stringify([signal])) this.#leave(peer, place, [signal]);
      return false;
    }
    const isRelay = "sdp" in signal && isRelayDescription(signal.sdp);
    if (signal.type === "close" || isRelay || this.#now() >= place.looksUntilMs) return false;
    if (signal.type !== "candidate") {
      this.#leave(peer, place, [signal]);
      return true;
    }
    const [first] = place.signals;
    if (first?.type === "dial" || first?.generation !== signal.generation) return false;
    if (place.signals.length < LEFT_SIGNALS_MAX) this.#leave(peer, place, [...place.signals, signal]);
    return true;
  }

  #now(): number {
    return this.#deps.clock.monotonicMs();
  }

  #watch(peer: UserId): Place | null {
    if (this.#disposed) return null;
    const known = this.#places.get(peer);
    if (known === undefined && this.#places.size >= LEFT_WATCHES_MAX) return null;
    const place = known ?? {
      ...{ signals: [], gathering: null, seen: null, taken: new Set<string>(), looking: null },
      ...{ lookUntilMs: 0, looksUntilMs: 0 },
    };
    this.#places.set(peer, place);
    place.lookUntilMs = this.#now() + LEFT_WATCH_MS;
    if (place.looking === null) this.#lookLater(peer, place);
    return place;
  }

  #end(peer: UserId, place: Place): void {
    place.looking?.dispose();
    place.gathering?.dispose();
    this.#places.delete(peer);
  }

  // ---- Ours ---------------------------------------------------------------------------------------------------------

  #leave(peer: UserId, place: Place, signals: readonly LinkSignal[]): void {
    place.signals = signals;
    place.gathering ??= this.#deps.clock.setTimer(LEFT_GATHER_MS, () => {
      place.gathering = null;
      void this.#publish(peer, place.signals);
    });
  }

  async #publish(peer: UserId, signals: readonly LinkSignal[]): Promise<void> {
    const { clock, log, directory } = this.#deps;
    try {
      const sealed = await this.#deps.seal(
        peer,
        encodeLeftSignals({ kind: "leftSignals", atMs: clock.now(), signals: [...signals] }),
      );
      if (sealed === null || this.#disposed || !this.#deps.mayLink(peer)) return;
      const value = encodeSealed(sealed);
      // Candidates come in order of their worth, so the last ones can be missed; without any it fits.
      if (value.length > DIRECTORY_VALUE_BYTES_MAX && signals.length > 1) {
        await this.#publish(peer, signals.slice(0, signals.length >> 1));
        return;
      }
      const published = await directory.publish(peer, value);
      if (!published.ok) log.debug("signals not left", { peer, error: published.error.type });
    } catch (error) {
      log.error("leaving signals failed", { peer, reason: messageOf(error) });
    }
  }

  // ---- The peer's ---------------------------------------------------------------------------------------------------

  #lookLater(peer: UserId, place: Place): void {
    place.looking = this.#deps.clock.setTimer(LEFT_LOOK_MS, () => void this.#look(peer, place));
  }

  async #look(peer: UserId, place: Place): Promise<void> {
    const isOver = (): boolean =>
      this.#disposed ||
      this.#places.get(peer) !== place ||
      this.#now() >= place.lookUntilMs ||
      this.#deps.isConnected(peer) ||
      !this.#deps.mayLink(peer);
    if (!isOver()) {
      try {
        const found = await this.#deps.directory.lookup(peer);
        if (found.ok && found.value !== null && !isOver()) await this.#found(peer, place, found.value, isOver);
      } catch (error) {
        this.#deps.log.error("looking for left signals failed", { peer, reason: messageOf(error) });
      }
    }
    if (isOver()) this.#end(peer, place);
    else this.#lookLater(peer, place);
  }

  async #found(peer: UserId, place: Place, value: Bytes, isOver: () => boolean): Promise<void> {
    if (place.seen !== null && bytesEqual(place.seen, value)) return;
    place.seen = value;
    const sealed = decodeSealed(value);
    const plaintext = sealed === null ? null : await this.#deps.open(peer, sealed);
    const left = plaintext === null ? null : decodeLeftSignals(plaintext);
    // The server, or an older Weir, can have put anything there; it costs a look.
    if (left?.ok !== true || isOver()) return;
    const { atMs, signals } = left.value;
    if (Math.abs(this.#deps.clock.now() - atMs) > LEFT_WATCH_MS + DIRECTORY_CLOCK_SKEW_MS) return;
    place.lookUntilMs = this.#now() + LEFT_WATCH_MS;
    // Whoever asks for something looks for what comes of it.
    if (signals.some(({ type }) => type === "dial" || type === "offer")) place.looksUntilMs = place.lookUntilMs;
    if (place.taken.size > TAKEN_MAX) place.taken.clear();
    for (const signal of signals) {
      const key = JSON.stringify(signal);
      if (place.taken.has(key)) continue;
      place.taken.add(key);
      this.#deps.onSignal(peer, signal);
    }
  }

  dispose(): void {
    this.#disposed = true;
    for (const [peer, place] of this.#places) this.#end(peer, place);
  }
}

const KINDS = ["message", "prekey"] as const;

const encodeSealed = ({ kind, body }: Sealed): Bytes => new Uint8Array([KINDS.indexOf(kind), ...body]);

const decodeSealed = (value: Bytes): Sealed | null => {
  const kind = KINDS[value[0] ?? -1];
  return kind === undefined || value.length < 2 ? null : { kind, body: value.slice(1) };
};
