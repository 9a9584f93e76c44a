import { type ChildProcess, fork } from "node:child_process";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { fileURLToPath } from "node:url";
import { afterEach, expect, test } from "vitest";
import type { Links } from "../../src-main/links/links.ts";
import { isFullRun } from "../support/counts.ts";
import { linksOver, type Wire } from "../support/links-peer-process.ts";
import { untilConnected, untilView } from "../support/links-world.ts";

const peerProcess = fileURLToPath(new URL("../support/links-peer-process.ts", import.meta.url));
const CUT_MS_MAX = 1000;
const opened: Links[] = [];
const children: ChildProcess[] = [];
afterEach(() => {
  for (const links of opened.splice(0)) links.dispose();
  for (const child of children.splice(0)) child.kill("SIGKILL");
});

/** A link of ours to a peer in a process of its own. */
const linkedTo = async (what: "attack" | "echo") => {
  const child = fork(peerProcess, [what], { execArgv: [] });
  children.push(child);
  const { links, heard, peer } = linksOver(0, (wire) => void (child.connected && child.send(wire)));
  opened.push(links);
  child.on("message", (wire) => heard(wire as Wire));
  links.enable();
  links.connect(peer);
  const { generation } = await untilConnected(links, peer);
  return { child, links, peer, generation };
};

test("a peer with 1,024 channels and a million messages is cut off, and other links hardly notice", async () => {
  const [mallory, carol] = [await linkedTo("attack"), await linkedTo("echo")];
  const roundTrip = (tag: number): Promise<number> => {
    const begun = performance.now();
    return new Promise((resolve) => {
      const subscription = carol.links.onMessage(({ message }) => {
        if (message.type !== "stop" || message.tag !== tag) return;
        subscription.dispose();
        resolve(performance.now() - begun);
      });
      expect(carol.links.send(carol.peer, carol.generation, { type: "stop", tag })).toBe(true);
    });
  };
  const measure = async (from: number, while_: () => boolean): Promise<number[]> => {
    const times: number[] = [];
    for (let tag = from; while_() || times.length < 100; tag += 1) times.push(await roundTrip(tag));
    return times.sort((a, b) => a - b);
  };
  const calm = await measure(0, () => false);
  const lag = monitorEventLoopDelay({ resolution: 1 });
  lag.enable();
  let cutAfterMs: number | null = null;
  const begun = performance.now();
  mallory.child.send("attack");
  const cut = untilView(mallory.links, mallory.peer, (view) => view.state !== "connected").then((view) => {
    cutAfterMs = performance.now() - begun;
    return view;
  });
  const attacked = await measure(1000, () => cutAfterMs === null);
  lag.disable();
  expect(["unexpected_channels", "control_flood"]).toContain((await cut).reason);
  // A time on a busy machine says nothing; in the full run it has the machine to itself.
  if (isFullRun) expect(cutAfterMs).toBeLessThan(CUT_MS_MAX);
  expect(carol.links.view(carol.peer)).toMatchObject({ state: "connected", generation: carol.generation });
  const p99 = (times: readonly number[]): number => times[Math.floor(times.length * 0.99)] ?? 0;
  process.stdout.write(
    `flood: ${(await cut).reason} after ${Math.round(cutAfterMs ?? -1)} ms; another link's round trip p99 ${p99(calm).toFixed(1)} ms before, ` +
      `${p99(attacked).toFixed(1)} ms during; event loop p99 ${(lag.percentile(99) / 1e6).toFixed(1)} ms\n`,
  );
}, 60_000);
