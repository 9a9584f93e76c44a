import type { Disposable } from "#shared/base/disposable.ts";
import type { Result } from "#shared/base/result.ts";
import type { ContactNetworkView, ErrorView, LinkReport, NetworkPolicy } from "#shared/ipc/views.ts";
import type { Api } from "../api.ts";
import { newestGeneration, type TestState, testOutcome } from "./link-test.ts";

/** Attempts that change no link are not announced, so the report is asked for again: often while a test runs. */
const QUIET_MS = 2000;
const TESTING_MS = 400;

/** What the connection page shows of one contact, kept up to date while it is open. */
export class LinkDoctor implements Disposable {
  report = $state.raw<LinkReport | null>(null);
  network = $state.raw<ContactNetworkView | null>(null);
  /** Why there is no report. */
  error = $state.raw<ErrorView | null>(null);
  test = $state.raw<TestState>({ kind: "idle" });
  readonly #api: Api;
  readonly #peerId: string;
  readonly #unsubscribe: () => void;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #asked = 0;
  #shown = 0;
  #disposed = false;

  constructor(api: Api, peerId: string) {
    this.#api = api;
    this.#peerId = peerId;
    this.#unsubscribe = api.on("link.changed", (link) => {
      if (link.peerId === peerId) void this.refresh();
    });
    void this.refresh();
    void this.#loadNetwork();
  }

  dispose(): void {
    this.#disposed = true;
    clearTimeout(this.#timer);
    this.#unsubscribe();
  }

  /** Answers can come in another order than they were asked for: an older one never replaces a newer one. */
  async refresh(): Promise<void> {
    clearTimeout(this.#timer);
    this.#asked += 1;
    const asked = this.#asked;
    const result = await this.#api.call("links.report", { peerId: this.#peerId });
    if (this.#disposed || asked < this.#shown) return;
    this.#shown = asked;
    const [report] = result.ok ? result.value : [];
    if (report !== undefined) this.report = report;
    this.error = result.ok ? null : result.error;
    this.#schedule();
  }

  #schedule(): void {
    clearTimeout(this.#timer);
    const delayMs = this.test.kind === "testing" ? TESTING_MS : QUIET_MS;
    this.#timer = setTimeout(() => void this.refresh(), delayMs);
  }

  async #loadNetwork(): Promise<void> {
    const result = await this.#api.call("contacts.network", { userId: this.#peerId });
    // A choice that was made meanwhile is newer.
    if (result.ok && this.network === null) this.network = result.value;
  }

  async choose(policy: NetworkPolicy): Promise<Result<ContactNetworkView>> {
    const result = await this.#api.call("contacts.network", { userId: this.#peerId, policy });
    if (result.ok) this.network = result.value;
    // What an earlier test found was found under the other policy.
    if (result.ok && this.test.kind !== "testing") this.test = { kind: "idle" };
    void this.refresh();
    return result;
  }

  /** Accepts the contact as such, which opens direct ways under the policy `afterAccept`. */
  async accept(): Promise<Result<ContactNetworkView>> {
    const accepted = await this.#api.call("contacts.accept", { userId: this.#peerId });
    if (!accepted.ok) return accepted;
    const result = await this.#api.call("contacts.network", { userId: this.#peerId });
    if (result.ok) this.network = result.value;
    void this.refresh();
    return result;
  }

  /** Makes a fresh connection and says what became of it; one test at a time. `who` is asked when it is over. */
  async runTest(nowMs: () => number, who: () => { name: string; online: boolean }): Promise<void> {
    const { report } = this;
    if (this.test.kind === "testing" || report === null) return;
    const before = newestGeneration(report);
    this.test = { kind: "testing", startedAtMs: nowMs(), before };
    this.#schedule();
    const result = await this.#api.call("links.test", { peerId: this.#peerId });
    if (this.#disposed) return;
    this.test = result.ok
      ? { kind: "done", atMs: nowMs(), before, outcome: testOutcome(result.value, before, who()) }
      : { kind: "failed", message: result.error.message };
    if (result.ok) {
      this.#asked += 1;
      this.#shown = this.#asked;
      this.report = result.value;
    }
    this.#schedule();
  }
}
