import { SvelteMap } from "svelte/reactivity";
import type { AvailabilityView } from "#shared/ipc/views.ts";
import type { Api } from "../api.ts";

/** Habits change slowly: an estimate is asked for again after this long, while somebody looks at it. */
const FRESH_MS = 10 * 60_000;

/** When people are usually online, asked for when it is to be shown. */
export class Availabilities {
  readonly #api: Pick<Api, "call">;
  readonly #known = new SvelteMap<string, AvailabilityView>();
  readonly #askedAtMs = new Map<string, number>();

  constructor(api: Pick<Api, "call">) {
    this.#api = api;
  }

  ask(userId: string, nowMs: number): void {
    if (nowMs - (this.#askedAtMs.get(userId) ?? Number.NEGATIVE_INFINITY) < FRESH_MS) return;
    this.#askedAtMs.set(userId, nowMs);
    void this.#api.call("activity.availability", { userId }).then((answer) => {
      if (answer.ok) this.#known.set(userId, answer.value);
    });
  }

  /** "usually online 18–23 h"; null while nothing is known. */
  wordsOf(userId: string): string | null {
    const hours = this.#known.get(userId)?.hours ?? null;
    return hours === null ? null : `usually online ${hours.from}–${hours.to} h`;
  }
}
