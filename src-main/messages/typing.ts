import type { Disposable } from "#shared/base/disposable.ts";
import type { Env, TimeMs } from "#shared/base/env.ts";
import type { UserId } from "#shared/base/ids.ts";
import { TYPING_REPEAT_MS, TYPING_TTL_MS } from "#shared/base/limits.ts";
import type { Links } from "../links/links.ts";

interface TypingDeps {
  readonly env: Env;
  readonly links: Links;
  readonly onChanged: (peer: UserId) => void;
}

/** Who types at the moment. Travels over links only and is worth nothing a few seconds later. */
export class Typing implements Disposable {
  readonly #deps: TypingDeps;
  readonly #active = new Map<UserId, Disposable>();
  /** When "types" was last sent to a peer, so that every key press does not become a message. */
  readonly #told = new Map<UserId, TimeMs>();

  constructor(deps: TypingDeps) {
    this.#deps = deps;
  }

  isTyping(peer: UserId): boolean {
    return this.#active.has(peer);
  }

  received(peer: UserId, typing: boolean): void {
    const before = this.#active.get(peer);
    before?.dispose();
    this.#active.delete(peer);
    if (typing) {
      this.#active.set(
        peer,
        this.#deps.env.clock.setTimer(TYPING_TTL_MS, () => this.received(peer, false)),
      );
    }
    if ((before !== undefined) !== typing) this.#deps.onChanged(peer);
  }

  /** False when there is no link to tell it over, or when it was told a moment ago. */
  tell(peer: UserId, typing: boolean): boolean {
    const nowMs = this.#deps.env.clock.monotonicMs();
    const lastMs = this.#told.get(peer);
    if (typing && lastMs !== undefined && nowMs - lastMs < TYPING_REPEAT_MS) return false;
    if (!typing && lastMs === undefined) return false;
    const link = this.#deps.links.view(peer);
    if (link.state !== "connected") return false;
    if (typing) this.#told.set(peer, nowMs);
    else this.#told.delete(peer);
    return this.#deps.links.send(peer, link.generation, { type: "typing", typing });
  }

  dispose(): void {
    for (const timer of this.#active.values()) timer.dispose();
    this.#active.clear();
    this.#told.clear();
  }
}
