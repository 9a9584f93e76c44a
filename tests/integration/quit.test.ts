import { expect, test } from "vitest";
import { SHUTDOWN_TIMEOUT_MS } from "#shared/base/limits.ts";
import { pair } from "../../scripts/headless-process.ts";
import { createWorld } from "../support/profiles.ts";

test("a busy profile ends at once although its server has stopped answering", { timeout: 90_000 }, async () => {
  await using world = await createWorld();
  const [alice, bob] = [await world.profile("alice"), await world.profile("bob")];
  await pair(alice, bob, "link");
  await bob.kill();
  world.freezeServer();
  const sent = Array.from({ length: 100 }, (_, i) =>
    alice.call("messages.send", { chatId: bob.userId, text: `message ${i}` }),
  );
  expect((await Promise.all(sent)).every(({ state }) => state === "queued")).toBe(true);
  const startedAt = performance.now();
  expect(await alice.stop()).toBe(0);
  // Every wait for an answer alone would take as long as the whole end may.
  expect(performance.now() - startedAt).toBeLessThan(SHUTDOWN_TIMEOUT_MS / 2);
});
