import { expect, test, vi } from "vitest";
import type { LinkEvent, LinkInput, LinkMachineState } from "../../src-main/links/link-state.ts";

/**
 * The simulation must be able to fail: with a machine that takes whatever comes for its current connection's, because
 * every event is given the current generation before it is looked at, it has to find something wrong soon.
 */
type LinkMachine = typeof import("../../src-main/links/link-machine.ts");
type LinkStates = typeof import("../../src-main/links/link-state.ts");

vi.mock("../../src-main/links/link-machine.ts", async (importOriginal) => {
  const { stepLink } = await importOriginal<LinkMachine>();
  const { currentAttempt } = await vi.importActual<LinkStates>("../../src-main/links/link-state.ts");
  const asCurrent = (state: LinkMachineState, event: LinkEvent): LinkEvent => {
    const attempt = currentAttempt(state.phase);
    if (attempt === null) return event;
    if ("generation" in event) return { ...event, generation: attempt.generation };
    if (event.type !== "signal" || event.signal.type === "offer" || event.signal.type === "dial") return event;
    return { ...event, signal: { ...event.signal, generation: attempt.offerGeneration } };
  };
  return {
    stepLink: (state: LinkMachineState, input: LinkInput) =>
      stepLink(state, { ...input, event: asCurrent(state, input.event) }),
  };
});

test("without the generation check the simulation finds what is wrong", async () => {
  const { simulateManagers } = await import("../support/links-sim.ts");
  const wrongs: string[] = [];
  for (let seed = 1; seed <= 20 && wrongs.length === 0; seed += 1)
    wrongs.push(...(await simulateManagers(seed)).wrongs);
  expect(wrongs.length).toBeGreaterThan(0);
  expect(wrongs.join()).toMatch(/took the answer to|has a candidate of another connection|in the end|came back|->/);
}, 60_000);
