import { assertNever } from "#shared/base/assert.ts";
import type { Disposable } from "#shared/base/disposable.ts";
import type { Env } from "#shared/base/env.ts";
import { ACTIVITY_RUN_MS } from "#shared/base/limits.ts";
import { MachineRunner } from "#shared/base/machine.ts";
import { messageOf } from "#shared/base/result.ts";
import type { ActivityGuards, Aggregation } from "./aggregation.ts";
import { type Effect, type Event, initialState, type RunResult, type State, step } from "./aggregator-machine.ts";

export interface AggregatorDeps {
  readonly env: Env;
  readonly aggregation: Aggregation;
  readonly guards: () => ActivityGuards;
  /** Lets everything else have its turn between two batches. */
  readonly pause: () => Promise<void>;
}

/** The shell of the aggregator machine: one batch at a time, each a transaction of its own. */
export class Aggregator implements Disposable {
  readonly #deps: AggregatorDeps;
  readonly #runner: MachineRunner<State, Event, Effect>;
  readonly #answers = new Map<number, (result: RunResult) => void>();
  #nextCall = 1;
  #deadline: Disposable | null = null;
  #disposed = false;

  constructor(deps: AggregatorDeps) {
    this.#deps = deps;
    this.#runner = new MachineRunner(initialState, step, (effect) => this.#run(effect));
  }

  get isRunning(): boolean {
    return this.#runner.state.kind !== "idle";
  }

  /** Results that came when nobody waited for them any more. */
  get staleResults(): number {
    return this.#runner.state.stale;
  }

  /** Takes up everything that was logged. One at a time: while one runs, the others answer `already_processing`. */
  async run(): Promise<RunResult> {
    if (this.#disposed) return { success: false, reason: "stopped", processedEvents: 0 };
    const { aggregation, env, guards } = this.#deps;
    const startedAt = env.clock.monotonicMs();
    const result = await (guards().lock ? this.#locked() : this.#unlocked());
    if (this.#disposed || (!result.success && result.reason === "already_processing")) return result;
    aggregation.sums.update({
      lastRunAt: Math.round(env.clock.now()),
      lastRunMs: Math.round(env.clock.monotonicMs() - startedAt),
      lastRunEvents: result.processedEvents,
      lastError: result.success ? null : result.reason,
    });
    return result;
  }

  /** No batch begins any more; one is never cut in half. */
  dispose(): void {
    this.#runner.dispatch({ type: "stop" });
    this.#disposed = true;
    this.#deadline?.dispose();
  }

  #locked(): Promise<RunResult> {
    const call = this.#nextCall++;
    return new Promise((resolve) => {
      this.#answers.set(call, resolve);
      this.#runner.dispatch({ type: "trigger", call });
    });
  }

  async #unlocked(): Promise<RunResult> {
    let processedEvents = 0;
    try {
      for (let more = true; more && !this.#disposed; ) {
        const batch = this.#deps.aggregation.batch(null, this.#deps.guards());
        if (batch.kind === "fenced") break;
        processedEvents += batch.processed;
        more = batch.more;
        await this.#deps.pause();
      }
      return { success: true, processedEvents };
    } catch (error) {
      this.#logFailure(error);
      return { success: false, reason: "failed", processedEvents };
    }
  }

  #run(effect: Effect): void {
    const { aggregation, env } = this.#deps;
    switch (effect.type) {
      case "takeLock":
        this.#attempt(effect.run, () => {
          const token = aggregation.takeLock();
          return token === null ? { type: "lockHeld", run: effect.run } : { type: "lockTaken", run: effect.run, token };
        });
        return;
      case "runBatch":
        void this.#batch(effect);
        return;
      case "releaseLock":
        try {
          aggregation.releaseLock(effect.token, effect.seize);
        } catch (error) {
          // It stays locked until it counts as stale, or until the next start.
          this.#logFailure(error);
        }
        return;
      case "setDeadline":
        this.#deadline = env.clock.setTimer(ACTIVITY_RUN_MS, () =>
          this.#runner.dispatch({ type: "deadline", run: effect.run }),
        );
        return;
      case "clearDeadline":
        this.#deadline?.dispose();
        return;
      case "answer":
        this.#answers.get(effect.call)?.(effect.result);
        this.#answers.delete(effect.call);
        return;
      default:
        assertNever(effect, "effect of the aggregator");
    }
  }

  async #batch({ run, token }: Extract<Effect, { type: "runBatch" }>): Promise<void> {
    await this.#deps.pause();
    if (this.#disposed) return;
    this.#attempt(run, () => {
      const batch = this.#deps.aggregation.batch(token, this.#deps.guards());
      return batch.kind === "fenced"
        ? { type: "fenced", run }
        : { type: "batchDone", run, processed: batch.processed, more: batch.more };
    });
  }

  #attempt(run: number, work: () => Event): void {
    let event: Event;
    try {
      event = work();
    } catch (error) {
      this.#logFailure(error);
      event = { type: "failed", run };
    }
    this.#runner.dispatch(event);
  }

  #logFailure(error: unknown): void {
    this.#deps.env.log.error("the activity log was not taken up", { error: messageOf(error) });
  }
}
