import { EARLY_CANDIDATES_MAX } from "#shared/base/limits.ts";
import type { LinkPath } from "./link-state.ts";
import { type CandidateEnd, type ParsedCandidate, parseCandidate, pathOf, withCandidates } from "./sdp.ts";

/** Where a connection leads, as far as its candidates tell. Types, never addresses, leave this file for others to see. */
export interface PathFacts {
  readonly path: LinkPath | null;
  /** Types of the selected pair. */
  readonly selected: { readonly local: string; readonly remote: string } | null;
  /** Our own candidates, for the guess at our address translator. */
  readonly localCandidates: readonly ParsedCandidate[];
  readonly remoteTypes: readonly string[];
}

/** The candidates of one connection, ours and the peer's: which may be told or used, and what they say about its path. */
export class CandidateBook {
  readonly #admits: (candidate: string) => boolean;
  readonly #local: ParsedCandidate[] = [];
  readonly #remote: ParsedCandidate[] = [];
  #remoteCount = 0;
  #path: LinkPath | null = null;
  #selected: PathFacts["selected"] = null;

  constructor(admits: (candidate: string) => boolean) {
    this.#admits = admits;
  }

  get facts(): PathFacts {
    return {
      path: this.#path,
      selected: this.#selected,
      localCandidates: this.#local,
      remoteTypes: [...new Set(this.#remote.map(({ type }) => type))].sort(),
    };
  }

  /** Descriptions can name candidates too. */
  admitted(sdp: string): string {
    return withCandidates(sdp, this.#admits);
  }

  /** Whether a candidate of ours may leave. */
  found(candidate: string): boolean {
    if (!this.#admits(candidate)) return false;
    const parsed = parseCandidate(candidate);
    if (parsed !== null && this.#local.length < EARLY_CANDIDATES_MAX) this.#local.push(parsed);
    return true;
  }

  /** Whether a candidate of the peer is used; too many of them are not. */
  told(candidate: string): boolean {
    this.#remoteCount += 1;
    if (this.#remoteCount > EARLY_CANDIDATES_MAX) return false;
    const parsed = parseCandidate(candidate);
    if (parsed !== null) this.#remote.push(parsed);
    return this.#admits(candidate);
  }

  measure(pair: { readonly local: CandidateEnd; readonly remote: CandidateEnd } | null): void {
    if (pair === null) return;
    const addresses = (of: readonly ParsedCandidate[], type: string): Set<string> =>
      new Set(of.filter((candidate) => candidate.type === type).map(({ address }) => address));
    this.#path = pathOf(pair.local, pair.remote, {
      relays: addresses([...this.#local, ...this.#remote], "relay"),
      remoteHosts: addresses(this.#remote, "host"),
      localHosts: addresses(this.#local, "host"),
    });
    this.#selected = { local: pair.local.type, remote: pair.remote.type };
  }
}
