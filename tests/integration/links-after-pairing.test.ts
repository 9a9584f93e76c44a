import { expect, test } from "vitest";
import { type HeadlessProfile, pair } from "../../scripts/headless-process.ts";
import { createWorld } from "../support/profiles.ts";

const linked = (me: HeadlessProfile, other: HeadlessProfile, timeoutMs: number) =>
  me.until(
    "a link",
    async () =>
      (await me.call("links.list", {})).find((it) => it.peerId === other.userId && it.state === "connected") ?? null,
    timeoutMs,
  );

// Right after the acceptance one side watches and dials before the other does: the server keeps such signals back.
test("two people are linked soon after they accepted each other, and again after one was away", {
  timeout: 90_000,
}, async () => {
  await using world = await createWorld();
  const [alice, bob] = [await world.profile("alice"), await world.profile("bob")];
  await pair(alice, bob, "code");
  await Promise.all([linked(alice, bob, 10_000), linked(bob, alice, 10_000)]);
  await bob.stop();
  await alice.until("bob gone", async () => {
    const [view] = await alice.call("links.list", {});
    return view?.state === "connected" ? null : true;
  });
  const again = await world.profile("bob");
  await Promise.all([linked(alice, again, 10_000), linked(again, alice, 10_000)]);
  expect((await alice.call("contacts.list", {}))[0]).toMatchObject({ userId: bob.userId, online: true });
});
