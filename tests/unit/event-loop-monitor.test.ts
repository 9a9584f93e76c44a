import { afterEach, expect, test, vi } from "vitest";
import { EVENT_LOOP_WATCH_MS } from "#shared/base/limits.ts";
import { EventLoopMonitor } from "../../src-main/diagnostics.ts";
import { ManualClock } from "../support/links-fake-rtc.ts";

const clock = new ManualClock();
const monitor = new EventLoopMonitor(clock);
afterEach(() => monitor.dispose());

/** Long enough for some samples of a real loop. */
const run = () => new Promise((resolve) => setTimeout(resolve, 100));

test("the event loop is measured while something goes on, and wakes nobody afterwards", async () => {
  await vi.waitFor(async () => {
    await run();
    expect(monitor.report()).not.toBeNull();
  });
  await clock.advance(EVENT_LOOP_WATCH_MS / 2);
  monitor.stir();
  await clock.advance(EVENT_LOOP_WATCH_MS / 2);
  await vi.waitFor(async () => {
    await run();
    expect(monitor.report()).toMatchObject({ p99Ms: expect.any(Number) });
  });

  await clock.advance(EVENT_LOOP_WATCH_MS);
  monitor.report();
  await run();
  expect(monitor.report()).toBeNull();

  monitor.stir();
  await run();
  const end = performance.now() + 60;
  while (performance.now() < end);
  await run();
  expect(monitor.report()?.maxMs).toBeGreaterThan(50);
});
