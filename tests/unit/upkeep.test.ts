import * as v from "valibot";
import { describe, expect, test } from "vitest";
import { Emitter } from "#shared/base/emitter.ts";
import type { Log } from "#shared/base/env.ts";
import { type UserId, UserIdSchema } from "#shared/base/ids.ts";
import { KEY_CHECK_INTERVAL_MS, UPKEEP_RETRY_MS } from "#shared/base/limits.ts";
import { fail, ok } from "#shared/base/result.ts";
import type { ServerView } from "#shared/ipc/views.ts";
import { systemRandom } from "../../src-main/env.ts";
import { startUpkeep, type UpkeepDeps } from "../../src-main/upkeep.ts";
import { ManualClock } from "../support/links-fake-rtc.ts";

const rethrow = (error: unknown): never => {
  throw error;
};
const ignore = (): void => undefined;
const log: Log = { debug: ignore, info: ignore, warn: ignore, error: ignore, child: () => log };
const userId = (letter: string): UserId => v.parse(UserIdSchema, letter.repeat(32));
const [bob, carol, eve] = [userId("b"), userId("c"), userId("e")];

const createWorld = () => {
  const clock = new ManualClock();
  const people = new Map<UserId, { accepted: boolean; keyChanged: boolean }>();
  const told: string[] = [];
  const asked: { name: string; input: unknown }[] = [];
  const world = {
    generation: 1,
    state: "disconnected" as ServerView["state"],
    refuse: new Set<string>(),
    online: [bob],
  };
  const connected = new Emitter<{ generation: number }>(rethrow);
  const keysLow = new Emitter<{ oneTimeEc: number; oneTimeKyber: number }>(rethrow);
  const presence = new Emitter<{ userId: UserId; online: boolean }>(rethrow);
  const stateChanged = new Emitter<ServerView>(rethrow);
  const changed = new Emitter<{ userId: string; removed: true }>(rethrow);
  const deps = {
    env: { clock, random: systemRandom, log },
    signaling: {
      get state() {
        return { state: world.state, url: "ws://x", error: null };
      },
      get generation() {
        return world.generation;
      },
      request: async (name: string, input: unknown) => {
        asked.push({ name, input });
        await Promise.resolve();
        if (world.refuse.has(name)) return fail("server_unreachable", "no");
        if (name === "presence.watch") return ok({ online: world.online });
        return ok({ published: told.includes("published"), oneTimeEc: 3, oneTimeKyber: 3 });
      },
      onConnected: connected.event,
      onKeysLow: keysLow.event,
      onPresence: presence.event,
      onStateChanged: stateChanged.event,
    },
    sessions: {
      keysToPublish: async (status: object) => ({ for: status }),
      published: () => told.push("published"),
    },
    contacts: {
      userIds: () => [...people.keys()],
      isAccepted: (id: UserId) => people.get(id)?.accepted ?? false,
      isKeyChanged: (id: UserId) => people.get(id)?.keyChanged ?? false,
      onChanged: changed.event,
      setOnline: (id: UserId, online: boolean) => told.push(`${id[0]} ${online ? "online" : "offline"}`),
      setAllOffline: () => told.push("all offline"),
    },
    links: {
      connect: (id: UserId) => told.push(`connect ${id[0]}`),
      disconnect: async (id: UserId) => void told.push(`disconnect ${id[0]}`),
      presenceHint: ignore,
    },
    // A fake of each seam: only what upkeep calls is there, and the real types are wider.
  } as unknown as UpkeepDeps;
  const count = (name: string): number => asked.filter((request) => request.name === name).length;
  return {
    ...{ clock, deps, told, asked, world, count, keysLow, presence, stateChanged },
    async login() {
      world.state = "connected";
      world.generation += 1;
      connected.emit({ generation: world.generation });
      await clock.advance(0);
    },
    change(id: UserId, to: { accepted: boolean; keyChanged?: boolean } | null) {
      if (to === null) people.delete(id);
      else people.set(id, { accepted: to.accepted, keyChanged: to.keyChanged ?? false });
      changed.emit({ userId: id, removed: true });
    },
  };
};

describe("upkeep", () => {
  test("says that keys are published only once the server has them", async () => {
    const { clock, deps, told, world, login } = createWorld();
    const upkeep = startUpkeep(deps);
    using _upkeep = stopAtEnd(upkeep);
    world.refuse.add("keys.publish");
    await login();
    expect(await upkeep.keysPublished()).toMatchObject({ ok: false, error: { type: "keys_not_published" } });
    world.refuse.clear();
    const published = upkeep.keysPublished().then((result) => told.push(`answered ${result.ok}`));
    await clock.advance(0);
    await published;
    expect(told).toEqual(["published", "answered true"]);
    upkeep.dispose();
    expect(await upkeep.keysPublished()).toMatchObject({ ok: true });
  });

  test("publishes keys after each login, when they run low, every hour, and again after a failure", async () => {
    const { clock, deps, count, told, world, keysLow, login } = createWorld();
    using _upkeep = stopAtEnd(startUpkeep(deps));
    await login();
    expect([count("keys.publish"), told]).toEqual([1, ["published"]]);
    keysLow.emit({ oneTimeEc: 1, oneTimeKyber: 1 });
    await clock.advance(0);
    expect(count("keys.publish")).toBe(2);
    await clock.advance(KEY_CHECK_INTERVAL_MS);
    expect(count("keys.publish")).toBe(3);
    world.refuse.add("keys.publish");
    keysLow.emit({ oneTimeEc: 1, oneTimeKyber: 1 });
    await clock.advance(0);
    world.refuse.clear();
    await clock.advance(UPKEEP_RETRY_MS);
    expect([count("keys.publish"), told.filter((what) => what === "published").length]).toEqual([5, 4]);
  });

  test("asks once more, not twice at once, when keys run low while they are being published", async () => {
    const { clock, deps, count, keysLow, login } = createWorld();
    using _upkeep = stopAtEnd(startUpkeep(deps));
    const done = login();
    for (let i = 0; i < 5; i++) keysLow.emit({ oneTimeEc: 1, oneTimeKyber: 1 });
    await done;
    await clock.advance(0);
    expect(count("keys.publish")).toBe(2);
  });

  test("watches somebody before the first signal to them, which the server would not pass on", async () => {
    const { deps, change, login } = createWorld();
    using _upkeep = stopAtEnd(startUpkeep(deps));
    await login();
    const order: string[] = [];
    const { request } = deps.signaling;
    Object.assign(deps.signaling, {
      request: (name: "presence.watch", input: { userIds: string[] }) => {
        order.push(`${name} ${input.userIds.join()}`);
        return request(name, input);
      },
    });
    Object.assign(deps.links, { connect: (id: UserId) => order.push(`connect ${id}`) });
    change(bob, { accepted: true });
    expect(order).toEqual([`presence.watch ${bob}`, `connect ${bob}`]);
  });

  test("wants a link to accepted contacts whose key is the accepted one, and to nobody else", async () => {
    const { deps, told, change } = createWorld();
    change(bob, { accepted: true });
    change(eve, { accepted: false });
    using _upkeep = stopAtEnd(startUpkeep(deps));
    expect(told).toEqual(["connect b"]);
    change(carol, { accepted: true });
    change(carol, { accepted: true });
    change(bob, { accepted: true, keyChanged: true });
    change(bob, { accepted: true });
    change(bob, { accepted: false });
    change(carol, null);
    expect(told).toEqual(["connect b", "connect c", "disconnect b", "connect b", "disconnect b", "disconnect c"]);
  });

  test("watches exactly the accepted contacts, again after a failure, and believes nothing about others", async () => {
    const { clock, deps, told, asked, world, count, presence, stateChanged, login, change } = createWorld();
    change(bob, { accepted: true });
    using _upkeep = stopAtEnd(startUpkeep(deps));
    world.refuse.add("presence.watch");
    await login();
    world.refuse.clear();
    await clock.advance(UPKEEP_RETRY_MS);
    expect(asked.filter(({ name }) => name === "presence.watch").map(({ input }) => input)).toEqual([
      { userIds: [bob] },
      { userIds: [bob] },
    ]);
    expect(told).toContain("b online");
    change(carol, { accepted: true });
    await clock.advance(0);
    expect(asked.at(-1)).toEqual({ name: "presence.watch", input: { userIds: [bob, carol] } });
    const before = count("presence.watch");
    // A mere change of name or presence is no reason to ask again.
    for (let i = 0; i < 50; i++) change(bob, { accepted: true });
    await clock.advance(0);
    expect(count("presence.watch")).toBe(before);
    presence.emit({ userId: eve, online: true });
    presence.emit({ userId: carol, online: true });
    stateChanged.emit({ state: "disconnected", url: "ws://x", error: null });
    expect(told).toContain("c online");
    expect(told).toContain("all offline");
    expect(told).not.toContain("e online");
  });

  test("an answer of an older connection tells nothing", async () => {
    const { clock, deps, told, world, login, change } = createWorld();
    change(bob, { accepted: true });
    using _upkeep = stopAtEnd(startUpkeep(deps));
    await clock.advance(0);
    const done = login();
    world.generation += 1;
    await done;
    await clock.advance(0);
    expect(told).not.toContain("b online");
  });

  test("leaves no timer and no listener behind", async () => {
    const { clock, deps, asked, login } = createWorld();
    const upkeep = startUpkeep(deps);
    await login();
    upkeep.dispose();
    expect(clock.timers).toBe(0);
    const before = asked.length;
    await login();
    expect(asked).toHaveLength(before);
  });
});

const stopAtEnd = (item: { dispose(): void }): Disposable => ({ [Symbol.dispose]: () => item.dispose() });
