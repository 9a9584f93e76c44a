import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { temporaryFolder } from "../support/files.ts";
import { createIdentity, freshEnvelopeId, RawClient, sealed } from "../support/rendezvous.ts";
import { type ServerProcess, startServerProcess } from "../support/server-process.ts";

const KILLS = 20;

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let running: ServerProcess | undefined;
beforeEach(async () => {
  folder = await temporaryFolder();
});
afterEach(async () => {
  await running?.end("SIGKILL");
  await folder.dispose();
});

describe("a server that is killed", () => {
  it(`delivers every envelope that it acknowledged, over ${KILLS} kills at random moments`, async () => {
    const recipient = createIdentity();
    const sender = createIdentity();
    const acknowledged: string[] = [];
    running = await startServerProcess(folder.path);
    (await RawClient.loggedIn(running.url, recipient)).close();

    for (let round = 0; round < KILLS; round++) {
      const client = await RawClient.loggedIn(running.url, sender);
      const lives = 20 + Math.random() * 250;
      const killed = new Promise<void>((resolve) => {
        setTimeout(() => void running?.end("SIGKILL").then(() => resolve()), lives);
      });
      try {
        for (;;) {
          const id = freshEnvelopeId();
          // Outcomes other than a success (the rate limit) promise nothing.
          const outcome = await client.outcome("mailbox.put", { to: recipient.userId, id, sealed: sealed(300) });
          if (outcome === "ok") acknowledged.push(id);
        }
      } catch {
        await killed;
      }
      running = await startServerProcess(folder.path);
    }

    const client = await RawClient.loggedIn(running.url, recipient);
    const delivered: string[] = [];
    while (!acknowledged.every((id) => delivered.includes(id))) {
      await client.until(() => client.pushes.length > 0);
      const ids = client.named("envelope").map(({ id }) => id as never);
      client.pushes.length = 0;
      delivered.push(...ids);
      const outcome = await client.outcome("mailbox.ack", { ids });
      if (outcome === "rate_limited") await new Promise((resolve) => setTimeout(resolve, 1000));
    }
    expect(acknowledged.length).toBeGreaterThan(KILLS);
    // In order, none twice; what was on its way at a kill may have been stored, too.
    expect(new Set(delivered).size).toBe(delivered.length);
    expect(delivered.filter((id) => acknowledged.includes(id))).toEqual(acknowledged);
    client.close();
  }, 110_000);
});
