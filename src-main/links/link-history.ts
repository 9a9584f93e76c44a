import type { TimeMs } from "#shared/base/env.ts";
import type { Generation } from "#shared/base/ids.ts";
import { LINK_HISTORY_MAX } from "#shared/base/limits.ts";
import type { LinkAttemptView } from "#shared/ipc/views.ts";
import { type Attempt, type AttemptEnd, type LinkPath, shownPath } from "./link-state.ts";

export interface CandidateTypes {
  readonly local: readonly string[];
  readonly remote: readonly string[];
  readonly servers: LinkAttemptView["servers"];
}

/** What was tried with one peer and what became of it, newest last; at most LINK_HISTORY_MAX attempts. No addresses. */
export class LinkHistory {
  #attempts: LinkAttemptView[] = [];

  began(attempt: Pick<Attempt, "generation" | "via">, atMs: TimeMs): void {
    this.#attempts.push({
      generation: attempt.generation,
      via: attempt.via,
      startedAtMs: atMs,
      localCandidates: [],
      remoteCandidates: [],
      servers: null,
      result: "trying",
      path: null,
      reason: null,
      ms: null,
    });
    this.#attempts = this.#attempts.slice(-LINK_HISTORY_MAX);
  }

  works(generation: Generation, path: LinkPath | null, ms: number): void {
    this.#change(generation, (entry) => ({ ...entry, result: "connected", path: shownPath(path), ms }));
  }

  ended(generation: Generation, end: AttemptEnd, reason: string | null, ms: number): void {
    this.#change(generation, (entry) => ({ ...entry, result: end, reason, ms: entry.ms ?? ms }));
  }

  /** The path that is really in use can become known after the link works. */
  measured(generation: Generation, path: LinkPath | null): void {
    this.#change(generation, (entry) => (path === null ? entry : { ...entry, path: shownPath(path) }));
  }

  saw(generation: Generation, types: CandidateTypes): void {
    this.#change(generation, (entry) => ({
      ...entry,
      localCandidates: [...types.local],
      remoteCandidates: [...types.remote],
      servers: types.servers,
    }));
  }

  list(): LinkAttemptView[] {
    return this.#attempts.map((entry) => ({ ...entry }));
  }

  #change(generation: Generation, change: (entry: LinkAttemptView) => LinkAttemptView): void {
    this.#attempts = this.#attempts.map((entry) => (entry.generation === generation ? change(entry) : entry));
  }
}
