import type { Disposable } from "#shared/base/disposable.ts";
import type { ActivityHealth, ActivitySummary, ErrorView } from "#shared/ipc/views.ts";
import type { Api } from "../api.ts";

export type Period = "week" | "month" | "year" | "all";

const DAYS: Readonly<Record<Exclude<Period, "all">, number>> = { week: 7, month: 30, year: 365 };
const DAY_MS = 86_400_000;
/** The page is a summary; what moves by the second is on the transfers page. */
const REFRESH_MS = 10_000;

/** What the activity page shows, kept up to date while it is open. */
export class ActivityState implements Disposable {
  summary = $state.raw<ActivitySummary | null>(null);
  health = $state.raw<ActivityHealth | null>(null);
  error = $state.raw<ErrorView | null>(null);
  period = $state.raw<Period>("month");
  /** "" for everybody. */
  userId = $state.raw("");
  /** What the last run, check or deletion came to. */
  said = $state.raw<{ tone: "good" | "bad"; text: string } | null>(null);
  isBusy = $state.raw(false);
  readonly #api: Api;
  readonly #nowMs: () => number;
  readonly #unsubscribe: () => void;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #asked = 0;
  #disposed = false;

  constructor(api: Api, nowMs: () => number) {
    this.#api = api;
    this.#nowMs = nowMs;
    this.#unsubscribe = api.on("transfer.changed", ({ phase }) => {
      if (phase === "complete" || phase === "failed") void this.refresh();
    });
    void this.refresh();
  }

  dispose(): void {
    this.#disposed = true;
    clearTimeout(this.#timer);
    this.#unsubscribe();
  }

  choose(change: { period?: Period; userId?: string }): void {
    this.period = change.period ?? this.period;
    this.userId = change.userId ?? this.userId;
    void this.refresh();
  }

  /** An answer to an older question never replaces a newer one. */
  async refresh(): Promise<void> {
    clearTimeout(this.#timer);
    this.#asked += 1;
    const asked = this.#asked;
    const { period, userId } = this;
    const [summary, health] = await Promise.all([
      this.#api.call("activity.summary", {
        ...(period === "all" ? {} : { fromMs: this.#nowMs() - (DAYS[period] - 1) * DAY_MS }),
        ...(userId === "" ? {} : { userId }),
      }),
      this.#api.call("activity.health", {}),
    ]);
    if (this.#disposed || asked !== this.#asked) return;
    if (summary.ok) this.summary = summary.value;
    if (health.ok) this.health = health.value;
    this.error = summary.ok ? null : summary.error;
    this.#timer = setTimeout(() => void this.refresh(), REFRESH_MS);
  }

  async runNow(): Promise<void> {
    await this.#do(async () => {
      const run = await this.#api.call("activity.run", {});
      if (!run.ok) return { tone: "bad", text: run.error.message };
      if (run.value.success)
        return { tone: "good", text: `Done. ${run.value.processedEvents} new events were counted.` };
      if (run.value.reason === "already_processing") return { tone: "good", text: "Events are being counted already." };
      return { tone: "bad", text: "It did not finish. What was counted stays; the rest is counted with the next run." };
    });
  }

  async check(repair: boolean): Promise<void> {
    await this.#do(async () => {
      const check = await this.#api.call("activity.check", { repair });
      if (!check.ok) return { tone: "bad", text: check.error.message };
      const { events, differences } = check.value;
      if (differences === 0)
        return { tone: "good", text: `The figures agree with all ${events} events that are kept.` };
      const found = `${differences} figures did not agree with the events.`;
      return repair ? { tone: "good", text: `${found} They do now.` } : { tone: "bad", text: found };
    });
  }

  async deleteHistory(): Promise<void> {
    await this.#do(async () => {
      const deleted = await this.#api.call("activity.deleteHistory", {});
      return deleted.ok
        ? { tone: "good", text: "The history was deleted. Counting begins anew." }
        : { tone: "bad", text: deleted.error.message };
    });
  }

  async #do(work: () => Promise<{ tone: "good" | "bad"; text: string }>): Promise<void> {
    if (this.isBusy) return;
    this.isBusy = true;
    this.said = await work();
    this.isBusy = false;
    await this.refresh();
  }
}
