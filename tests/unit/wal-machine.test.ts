import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  WAL_FINISH_PAGES,
  WAL_KEPT_PAGES,
  WAL_PAGES_MAX,
  WAL_PASS_PAGES,
  WAL_RESTART_PAGES,
} from "#shared/base/limits.ts";
import {
  INITIAL_WAL_STATE,
  stepWal,
  type WalEffect,
  type WalEvent,
  type WalState,
} from "../../src-main/store/wal-machine.ts";

/** A WAL with a writer and a thread; a pass copies what was there when it began, and ends when the test says so. */
class Run {
  state: WalState = INITIAL_WAL_STATE;
  frames = 0;
  copied = 0;
  /** Where the pass that goes on will have come. */
  passTo: number | null = null;
  hasThread = false;
  /** Pages that the writer had to copy in one go. */
  longestFinish = 0;
  effects: readonly WalEffect[] = [];

  commit(pages: number, isLarge = false): this {
    // SQLite begins the WAL anew when all of it was copied.
    if (this.copied === this.frames && this.passTo === null) this.frames = this.copied = 0;
    this.frames += pages;
    return this.#do({ type: "committed", wal: this.#wal(), isLarge });
  }
  passed(failed = false): this {
    if (!failed) this.copied = Math.max(this.copied, this.passTo ?? 0);
    this.passTo = null;
    return this.#do({ type: "passed", wal: this.#wal(), failed });
  }
  exited(): this {
    this.passTo = null;
    this.hasThread = false;
    return this.#do({ type: "exited" });
  }
  rested(): this {
    return this.#do({ type: "rested", wal: this.#wal() });
  }
  get did(): string[] {
    return this.effects.map(({ type }) => type);
  }

  #wal = (): { frames: number; copied: number } => ({ frames: this.frames, copied: this.copied });

  #do(event: WalEvent): this {
    [this.state, this.effects] = stepWal(this.state, event);
    for (const { type } of this.effects) {
      if (type === "pass") {
        expect(this.passTo).toBeNull();
        this.hasThread = true;
        this.passTo = this.frames;
      } else if (type === "finish") {
        expect(this.passTo).toBeNull();
        this.longestFinish = Math.max(this.longestFinish, this.frames - this.copied);
        this.copied = this.frames;
      } else if (type === "truncate") {
        expect(this.passTo).toBeNull();
        this.frames = this.copied = 0;
      }
    }
    return this;
  }
}

describe("the WAL of chunks.db", () => {
  test("of a file that fits is not copied while it arrives", () => {
    const run = new Run();
    while (run.frames < WAL_KEPT_PAGES - 40) expect(run.commit(40).did).toEqual([]);
    expect(run.commit(40).did).toEqual(["pass"]);
  });

  test("of a larger file is copied by the thread, in ever shorter passes, and the writer copies only the rest", () => {
    const run = new Run();
    while (run.passTo === null) run.commit(40, true);
    expect(run.frames).toBeLessThan(WAL_PASS_PAGES + 40);
    // While a pass goes on the writer adds a third of what it copies: the thread is three times as fast as the writer.
    for (let round = 0; round < 1000; round += 1) {
      if (run.passTo === null) run.commit(40);
      else run.commit(Math.ceil((run.passTo - run.copied) / 3)).passed();
      expect(run.frames).toBeLessThan(WAL_RESTART_PAGES + 2 * WAL_PASS_PAGES);
    }
    expect(run.longestFinish).toBeGreaterThan(0);
    expect(run.longestFinish).toBeLessThanOrEqual(WAL_FINISH_PAGES);
  });

  test("is copied and emptied at rest, and the thread ends", () => {
    const run = new Run().commit(40);
    expect(run.rested().did).toEqual(["truncate"]);
    expect(run.hasThread).toBe(false);
    run.commit(WAL_FINISH_PAGES + 1);
    expect(run.rested().did).toEqual(["pass"]);
    expect(run.passed().did).toEqual(["end", "truncate"]);
    expect(run.exited().did).toEqual([]);
    expect(run.state).toEqual({ ...INITIAL_WAL_STATE, isAtRest: true });
  });

  test("at rest is left alone when it is written again before a pass is through", () => {
    const run = new Run().commit(WAL_FINISH_PAGES + 1).rested();
    expect(run.commit(40).did).toEqual([]);
    expect(run.passed().did).toEqual([]);
    expect(run.frames).toBe(WAL_FINISH_PAGES + 41);
  });

  test("is copied by the writer after the thread failed, until the next rest", () => {
    const run = new Run();
    while (run.passTo === null) run.commit(40, true);
    expect(run.passed(true).did).toEqual(["end"]);
    run.exited();
    while (run.did.length === 0) run.commit(40);
    expect(run.did).toEqual(["finish"]);
    expect(run.longestFinish).toBeLessThan(WAL_RESTART_PAGES + 40);
    expect(run.commit(40).rested().did).toEqual(["truncate"]);
    while (run.passTo === null) run.commit(40, true);
    expect(run.did).toEqual(["pass"]);
  });

  test("is emptied at rest by the writer when the thread dies meanwhile", () => {
    const run = new Run().commit(WAL_FINISH_PAGES + 1).rested();
    expect(run.exited().did).toEqual(["truncate"]);
  });

  test("whatever happens: one pass at a time, bounded, and empty in the end", () => {
    const event = fc.oneof(
      { weight: 20, arbitrary: fc.record({ type: fc.constant("commit"), pages: fc.integer({ min: 1, max: 400 }) }) },
      { weight: 5, arbitrary: fc.record({ type: fc.constantFrom("passed", "large", "rested") }) },
      { weight: 1, arbitrary: fc.record({ type: fc.constantFrom("failed", "died") }) },
    );
    fc.assert(
      fc.property(fc.array(event, { minLength: 200, maxLength: 600 }), (events) => {
        const run = new Run();
        for (const { type, ...rest } of events) {
          // A writer that outruns its thread for good is stopped at the limit, by the shell.
          if ("pages" in rest && run.frames < WAL_PAGES_MAX) run.commit(rest.pages);
          else if (type === "large") run.commit(1, true);
          else if (type === "rested") run.rested();
          else if (type === "died" && run.hasThread) run.exited();
          else if (run.passTo !== null) run.passed(type === "failed");
          if (run.state.thread === "ending") run.exited();
          expect(run.frames).toBeLessThan(WAL_PAGES_MAX + 400);
        }
        run.rested();
        for (let i = 0; i < 3; i += 1) {
          if (run.passTo !== null) run.passed();
          if (run.state.thread === "ending") run.exited();
        }
        expect(run).toMatchObject({ frames: 0, hasThread: false, state: { isAlone: false, isLarge: false } });
      }),
    );
  });
});
