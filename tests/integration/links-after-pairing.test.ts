import { expect, test } from "vitest";
import { LINK_CONNECT_TIMEOUT_MS } from "#shared/base/limits.ts";
import { type HeadlessProfile, pair } from "../../scripts/headless-process.ts";
import { changeProfile } from "../support/profile-database.ts";
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

test("two people are linked again, and talk, after one of them lost the session", { timeout: 120_000 }, async () => {
  await using world = await createWorld();
  const people = { alice: await world.profile("alice"), bob: await world.profile("bob") };
  await pair(people.alice, people.bob);
  // Once the side that makes the offers, once the one that answers them.
  for (const name of ["alice", "bob"] as const) {
    await Promise.all([linked(people.alice, people.bob, 20_000), linked(people.bob, people.alice, 20_000)]);
    await people[name].stop();
    await changeProfile(world.dataOf(name), "DELETE FROM signal_sessions");
    people[name] = await world.profile(name);
    // Less than an attempt takes to give up: a signal that cannot be read starts the repair, and that a new attempt.
    const timeoutMs = LINK_CONNECT_TIMEOUT_MS * 0.75;
    await Promise.all([linked(people.alice, people.bob, timeoutMs), linked(people.bob, people.alice, timeoutMs)]);
    await talk(people.alice, people.bob, `to Bob, ${name} lost it`);
    await talk(people.bob, people.alice, `to Alice, ${name} lost it`);
  }
});

const talk = async (from: HeadlessProfile, to: HeadlessProfile, text: string): Promise<void> => {
  await from.call("messages.send", { chatId: to.userId, text });
  await to.until(text, async () => {
    const messages = await to.call("messages.list", { chatId: from.userId, limit: 10 });
    return messages.some((message) => message.text === text) ? true : null;
  });
};
