import type { FileId, UserId } from "#shared/base/ids.ts";
import { SHARE_KEY_REQUESTS_MAX } from "#shared/base/limits.ts";
import type { ShareOperation } from "#shared/shares/share-log.ts";
import type { ContentDraft } from "#shared/wire/content.ts";
import type { FileOffer } from "#shared/wire/manifest.ts";
import type { Verdict } from "./share-machine.ts";

export interface KeyRequestsDeps {
  readonly post: (peer: UserId, draft: ContentDraft) => void;
  readonly verdict: (fileId: FileId, userId: UserId) => Verdict;
  /** Has the list fetched; its end is told by `answer`. */
  readonly freshen: (fileId: FileId) => void;
  readonly onOffered: (fileId: FileId, userId: UserId) => void;
  readonly keyOf: (fileId: FileId) => { offer: FileOffer; start: ShareOperation } | null;
}

/**
 * Keys of files that people ask each other for. A key goes to nobody whom the list, fetched after the request came, does
 * not name; whoever is refused gets no answer, so that they learn nothing about the file.
 */
export class KeyRequests {
  readonly #deps: KeyRequestsDeps;
  readonly #waiting = new Map<FileId, Set<UserId>>();
  readonly #asked = new Set<string>();
  /** Requests that were refused, for tests and diagnostics. */
  refused = 0;

  constructor(deps: KeyRequestsDeps) {
    this.#deps = deps;
  }

  /** Once a run of the program: an answer may still come. */
  ask(peer: UserId, fileId: FileId): void {
    const request = `${peer} ${fileId}`;
    if (this.#asked.has(request) || this.#asked.size >= SHARE_KEY_REQUESTS_MAX) return;
    this.#asked.add(request);
    this.#deps.post(peer, { kind: "keyRequest", fileId });
  }

  wanted(from: UserId, fileId: FileId, isKnown: boolean): void {
    if (!isKnown || this.#waiting.size >= SHARE_KEY_REQUESTS_MAX) {
      this.refused += 1;
      return;
    }
    const people = this.#waiting.get(fileId) ?? new Set();
    this.#waiting.set(fileId, people.add(from));
    if (this.#deps.verdict(fileId, from) === "serve") this.answer(fileId);
    // Whoever is not in the list yet may have been added a moment ago.
    else this.#deps.freshen(fileId);
  }

  /** The list is fresh, or was fetched in vain: then it goes on waiting. */
  answer(fileId: FileId): void {
    for (const peer of this.#waiting.get(fileId) ?? []) {
      const verdict = this.#deps.verdict(fileId, peer);
      if (verdict === "later") continue;
      this.#waiting.get(fileId)?.delete(peer);
      const key = verdict === "serve" ? this.#deps.keyOf(fileId) : null;
      if (key === null) {
        this.refused += 1;
        continue;
      }
      this.#deps.post(peer, { kind: "fileKey", ...key });
      this.#deps.onOffered(fileId, peer);
    }
    if (this.#waiting.get(fileId)?.size === 0) this.#waiting.delete(fileId);
  }
}
