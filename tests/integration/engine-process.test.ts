import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { describe, expect, test } from "vitest";
import { pair } from "../../scripts/headless-process.ts";
import { createWorld } from "../support/profiles.ts";

/** Programs as they run, looked at through Linux's /proc. */
const childrenOf = async (pid: number): Promise<number[]> =>
  (await readFile(`/proc/${pid}/task/${pid}/children`, "utf8")).split(" ").filter(Boolean).map(Number);

const hasAddon = async (pid: number): Promise<boolean> =>
  (await readFile(`/proc/${pid}/maps`, "utf8")).includes("node_datachannel");

/** False also for a zombie that its parent has not taken note of. */
const runs = async (pid: number): Promise<boolean> => {
  const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => null);
  return stat !== null && !/\) [ZX] /.test(stat);
};

describe.skipIf(process.platform !== "linux")("the engine of a program", () => {
  test("alone holds the addon, is replaced when it dies, and ends with the program, however that ends", {
    timeout: 60_000,
  }, async () => {
    await using world = await createWorld();
    const [alice, bob] = [await world.profile("alice"), await world.profile("bob")];
    await pair(alice, bob, "link");
    const main = alice.process.pid ?? 0;
    const [engine = 0, ...others] = await childrenOf(main);
    expect(others).toEqual([]);
    expect([await hasAddon(main), await hasAddon(engine)]).toEqual([false, true]);

    const connected = async (): Promise<boolean> =>
      (await alice.call("links.list", {})).some(({ state }) => state === "connected");
    await expect.poll(connected, { timeout: 20_000 }).toBe(true);
    process.kill(engine, "SIGSEGV");
    await expect.poll(connected, { timeout: 20_000 }).toBe(false);
    await expect.poll(connected, { timeout: 20_000 }).toBe(true);
    const [second = 0] = await childrenOf(main);
    expect(second).not.toBe(engine);

    // Ctrl-C reaches every process of a terminal, the program ends in order all the same.
    process.kill(second, "SIGINT");
    process.kill(second, "SIGTERM");
    expect(await alice.stop()).toBe(0);
    expect(await runs(second)).toBe(false);

    const [bobsEngine = 0] = await childrenOf(bob.process.pid ?? 0);
    const ended = once(bob.process, "exit");
    bob.process.kill("SIGKILL");
    await ended;
    await expect.poll(() => runs(bobsEngine)).toBe(false);
  });
});
