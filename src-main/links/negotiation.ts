import type { Disposable } from "#shared/base/disposable.ts";
import type { Clock } from "#shared/base/env.ts";
import { ICE_HEAD_START_MS, SEND_QUEUED_BYTES_LOW } from "#shared/base/limits.ts";
import { fail, ok, type Result } from "#shared/base/result.ts";
import type { LinkAttemptView } from "#shared/ipc/views.ts";
import type { CandidateBook } from "./candidate-book.ts";
import { fingerprintOf, isHostCandidate } from "./sdp.ts";
import { Timers } from "./timers.ts";
import type { LinkTransport, TransportDriver, TransportError, TransportEvent, TransportOptions } from "./transport.ts";

export interface NegotiationDeps {
  readonly clock: Clock;
  readonly driver: TransportDriver;
  readonly rtc: Omit<TransportOptions, "bulkLowBytes">;
  /** STUN and TURN servers to ask, found out when the connection opens; null when it opens without. Never rejects. */
  readonly iceServers: (() => Promise<readonly string[]>) | null;
  readonly candidates: CandidateBook;
  onEvent(event: TransportEvent): void;
  lose(reason: string): void;
}

/** How a transport to one peer comes about: descriptions and candidates of both sides, and what they promise (JSEP, RFC 9429). */
export class Negotiation implements Disposable {
  readonly #deps: NegotiationDeps;
  readonly #headStarts: Timers;
  #transport: LinkTransport | null = null;
  #localSdp: string | null = null;
  #remoteSdp: string | null = null;
  /** The peer's, while the list of servers is being fetched. */
  readonly #waiting: { candidate: string; mid: string }[] = [];
  #iceServers: readonly string[] = [];
  #servers: LinkAttemptView["servers"] = null;
  /** The answerer lets the dialer's checks come first; see `addCandidate`. */
  #yields = false;
  #isDisposed = false;

  constructor(deps: NegotiationDeps) {
    this.#deps = deps;
    this.#headStarts = new Timers(deps.clock);
  }

  /** Null before it is open, and after `dispose`. */
  get transport(): LinkTransport | null {
    return this.#transport;
  }

  get iceServers(): readonly string[] {
    return this.#iceServers;
  }

  /** How many servers of each kind were asked; null when nobody looked for any. */
  get servers(): LinkAttemptView["servers"] {
    return this.#servers;
  }

  dial(): void {
    this.#open((transport) => transport.createOffer());
  }

  answer(offer: string): void {
    this.#remoteSdp = offer;
    this.#yields = true;
    this.#open((transport) => transport.acceptOffer(this.#deps.candidates.admitted(offer)));
  }

  acceptAnswer(sdp: string): void {
    this.#remoteSdp = sdp;
    const result = this.#transport?.acceptAnswer(this.#deps.candidates.admitted(sdp));
    if (result?.ok === false) this.#deps.lose("bad_description");
  }

  /** Our description, as it may be told to the peer. */
  described(sdp: string): string {
    this.#localSdp = sdp;
    return this.#deps.candidates.admitted(sdp);
  }

  /**
   * An unusable candidate costs nothing but itself; too many of them are not used.
   *
   * The answerer is the DTLS client, and greets as soon as its own ICE check succeeds. If that is before a check of the
   * dialer has, nobody there takes it up (or worse, see ADR 8), and DTLS repeats its greeting only after a second. Where
   * no address translator is between them, whose check is sent first succeeds first: so the dialer's addresses wait for a moment here.
   */
  addCandidate(candidate: string, mid: string): void {
    if (!this.#deps.candidates.told(candidate)) return;
    const use = () => this.#use(candidate, mid);
    if (this.#yields && isHostCandidate(candidate)) this.#headStarts.later(ICE_HEAD_START_MS, use);
    else use();
  }

  /** Both certificates as the descriptions name them, the peer's compared with the one it really used. */
  fingerprints(): Result<{ localFingerprint: string; remoteFingerprint: string }> {
    const local = this.#localSdp === null ? null : fingerprintOf(this.#localSdp);
    const remote = this.#remoteSdp === null ? null : fingerprintOf(this.#remoteSdp);
    if (local === null || remote === null) return fail("bad_description", "A description names no certificate.");
    if (this.#transport?.remoteFingerprint() !== remote)
      return fail("fingerprint_mismatch", "The peer's certificate is not the one it announced.");
    return ok({ localFingerprint: local, remoteFingerprint: remote });
  }

  #open(start: (transport: LinkTransport) => Result<void, TransportError>): void {
    const { iceServers, rtc } = this.#deps;
    if (iceServers === null) {
      this.#openWith(rtc.iceServers, start);
      return;
    }
    void iceServers().then((servers) => {
      if (this.#isDisposed) return;
      const count = (scheme: string): number => servers.filter((url) => url.startsWith(scheme)).length;
      this.#servers = { stun: count("stun:"), turn: count("turn:") };
      this.#openWith(servers, start);
    });
  }

  #openWith(iceServers: readonly string[], start: (transport: LinkTransport) => Result<void, TransportError>): void {
    this.#iceServers = iceServers;
    const options = { ...this.#deps.rtc, iceServers, bulkLowBytes: SEND_QUEUED_BYTES_LOW };
    const opened = this.#deps.driver.open(options, (event) => this.#deps.onEvent(event));
    if (!opened.ok) {
      this.#deps.lose(opened.error.type);
      return;
    }
    this.#transport = opened.value;
    if (!start(opened.value).ok) {
      this.#deps.lose("bad_description");
      return;
    }
    for (const { candidate, mid } of this.#waiting.splice(0)) this.#transport?.addRemoteCandidate(candidate, mid);
  }

  #use(candidate: string, mid: string): void {
    if (this.#transport === null) this.#waiting.push({ candidate, mid });
    else this.#transport.addRemoteCandidate(candidate, mid);
  }

  /** Closes the transport: no event comes after it. */
  dispose(): void {
    this.#isDisposed = true;
    this.#headStarts.dispose();
    this.#transport?.close();
    this.#transport = null;
  }
}
