import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import type { ReceivePoint } from "../../src-main/messages/inbox.ts";
import { type ChatPeer, ChatWorld, pair } from "../support/chat-world.ts";
import { saveMailbox } from "../support/mailbox-file.ts";

/** The end of the process at any point of receiving: every message is shown exactly once, in order. */
const POINTS: readonly ReceivePoint[] = ["read", "decrypt", "commit", "process", "render", "ack"];
const KILLS_PER_POINT = 50;

let world: ChatWorld;
afterEach(() => world.dispose());

const friends = async (): Promise<{ alice: ChatPeer; bob: ChatPeer }> => {
  world = new ChatWorld({ crypto: "signal" });
  const [alice, bob] = [await world.join("Alice"), await world.join("Bob")];
  await pair(world, alice, bob);
  return { alice, bob };
};

/** Ends the life of the profile at the next `point`. Nothing can be thrown after the acknowledgement: nobody waits for it. */
const killAt = (peer: ChatPeer, point: ReceivePoint): void => {
  peer.checkpoint = (reached) => {
    if (reached !== point) return;
    peer.kill();
    if (reached !== "ack") throw new Error("killed");
  };
};

describe.each(POINTS)("killed at %s", (point) => {
  test.each(["mailbox", "link"] as const)("over the %s", async (way) => {
    const { alice, bob } = await friends();
    const sent: string[] = [];
    for (let i = 0; i < KILLS_PER_POINT / 2; i++) {
      if (way === "link") world.linkUp(alice, bob);
      killAt(bob, point);
      for (const half of ["a", "b"]) sent.push(alice.send(bob, `message ${i}${half}`).text);
      await world.run();
      expect(bob.alive).toBe(false);
      bob.checkpoint = () => undefined;
      await bob.restart();
      await world.run();
    }
    await world.runFor(1000);
    expect(bob.texts(alice)).toEqual(sent);
    expect(new Set(alice.shown(bob).map((message) => message.state))).toEqual(new Set(["delivered"]));
    expect(bob.notices).toEqual([]);
  });
});

test("a real process, killed with SIGKILL at every point", { timeout: 120_000 }, async () => {
  const { alice, bob } = await friends();
  bob.setServer("disconnected");
  const sent = Array.from({ length: 40 }, (_, i) => alice.send(bob, `message ${i}`).text);
  await world.run();
  const mailbox = join(world.folder, "mailbox.json");
  const acked = join(world.folder, "acked.txt");
  saveMailbox(mailbox, world.mailboxes.get(bob.userId) ?? []);
  writeFileSync(acked, "");
  await bob.stop();
  const receive = async (point: ReceivePoint | "never", hit: number): Promise<string> => {
    const child: ChildProcess = fork(
      new URL("../support/receive-child.ts", import.meta.url),
      [world.folder, mailbox, acked, point, String(hit)],
      { execArgv: [], stdio: "inherit" },
    );
    const [code, signal] = await once(child, "exit");
    return signal ?? `exit ${code}`;
  };
  for (const point of POINTS) for (const hit of [1, 3]) expect(await receive(point, hit)).toBe("SIGKILL");
  expect(await receive("never", 0)).toBe("exit 0");
  await bob.start();
  expect(bob.texts(alice)).toEqual(sent);
});
