import { randomBytes } from "node:crypto";
import { copyFile, mkdir, readdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import Sqlite from "better-sqlite3";
import * as v from "valibot";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Bytes } from "#shared/base/bytes.ts";
import { UserIdSchema } from "#shared/base/ids.ts";
import type { ContactView, MessageView, NoticeView } from "#shared/ipc/views.ts";
import type { Sealed } from "#shared/rendezvous/protocol.ts";
import { CommandError, type HeadlessProfile, pair, say } from "../../scripts/headless-process.ts";
import { loadOrCreateAccount } from "../../src-main/crypto/identity.ts";
import { createSessions } from "../../src-main/crypto/signal-sessions.ts";
import { AccountTable } from "../../src-main/store/account.ts";
import { Needles, withChildren } from "../support/canary-needles.ts";
import { counted } from "../support/counts.ts";
import { changeProfile, openProfileDatabase } from "../support/profile-database.ts";
import { createWorld, type World } from "../support/profiles.ts";
import { testEnv } from "../support/session-peer.ts";

/**
 * Alice has compared safety numbers with Bob. In the middle of what she writes him somebody else appears with Bob's account
 * and an identity key of his own: Bob on a new computer, or whoever has stolen his account key and runs the server besides.
 * Without that key nobody gets so far: a bundle that the account has not signed is refused before it is used.
 */
const MESSAGES = counted(40, 200);
const QUARTER = MESSAGES / 4;
/** From here on she writes while the new key is not approved; from the last ones on he is away besides. */
const BLOCKED_FROM = (MESSAGES / 8) * 7;
const AWAY_FROM = MESSAGES - 2;
const PATIENCE_MS = 120_000;
/** Long enough for what is sent at once to be sent. */
const NOTHING_HAPPENS_MS = 1500;
const secret = randomBytes(16).toString("hex");
const textOf = (n: number): string => `${secret} ${n}`;
const numbersIn = (texts: readonly string[]): number[] =>
  texts.filter((text) => text.startsWith(secret)).map((text) => Number(text.slice(secret.length)));
const range = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, n) => from + n);

let world: World;
let [alice, bob]: HeadlessProfile[] = [];
const me = (profile: HeadlessProfile | undefined): HeadlessProfile => {
  if (profile === undefined) throw new Error("the world is not up");
  return profile;
};
const contactOf = async (whose: HeadlessProfile | undefined, userId: string): Promise<ContactView> => {
  const found = (await me(whose).call("contacts.list", {})).find((contact) => contact.userId === userId);
  if (found === undefined) throw new Error("no such contact");
  return found;
};
const textsOf = async (whose: HeadlessProfile | undefined, chatId: string): Promise<string[]> =>
  (await me(whose).call("messages.list", { chatId, limit: 200 })).map(({ text }) => text).reverse();
const statesOf = async (from: number): Promise<Set<MessageView["state"]>> => {
  const all = await me(alice).call("messages.list", { chatId: me(bob).userId, limit: 200 });
  return new Set(all.filter(({ text }) => numbersIn([text]).some((n) => n >= from)).map(({ state }) => state));
};
const errorOf = (promise: Promise<unknown>): Promise<string | null> =>
  promise.then(
    () => null,
    (error: unknown) => (error instanceof CommandError ? error.type : String(error)),
  );
const briefly = () => new Promise((resolve) => setTimeout(resolve, NOTHING_HAPPENS_MS));

/** What lies at the server from Alice to Bob. */
const inMailbox = (): { id: string; kind: Sealed["kind"]; body: Bytes }[] => {
  const db = new Sqlite(join(world.dir, "server", "server.db"), { readonly: true, fileMustExist: true });
  try {
    return db
      .prepare<[string, string], { id: string; kind: Sealed["kind"]; body: Bytes }>(
        "SELECT id, kind, body FROM mailbox WHERE sender = ? AND recipient = ? ORDER BY seq",
      )
      .all(me(alice).userId, me(bob).userId);
  } finally {
    db.close();
  }
};

/** How many of these envelopes the keys of a profile open. It does not run; this happens on a copy of it. */
const opensOf = async (name: string, envelopes: readonly Sealed[]): Promise<string[]> => {
  const copy = join(world.dir, `copy of ${name}`);
  await mkdir(copy, { recursive: true });
  for (const file of await readdir(world.dataOf(name)))
    if (/^(app\.db|key\.json)/.test(file)) await copyFile(join(world.dataOf(name), file), join(copy, file));
  const db = await openProfileDatabase(copy);
  const { env } = testEnv(Date.now());
  const sessions = await createSessions({ db, env, account: loadOrCreateAccount(db, env), deviceId: 1 });
  const alicesId = v.parse(UserIdSchema, me(alice).userId);
  const outcomes: string[] = [];
  for (const { kind, body } of envelopes) {
    const opened = await sessions.open(alicesId, { kind, body: new Uint8Array(body) }, () => undefined);
    outcomes.push(opened.ok ? "opened" : opened.error.type);
  }
  db.dispose();
  await rm(copy, { recursive: true });
  return outcomes;
};

/** Whether a program or its files hold what Alice wrote. */
const knows = async (profile: HeadlessProfile | undefined, name: string): Promise<boolean> => {
  const needles = new Needles(new Map([["it", Buffer.from(secret)]]));
  const pids = process.platform === "linux" ? withChildren(me(profile).process.pid ?? 0) : [];
  const inMemory = pids.some((pid) => needles.inMemory(pid).found.size > 0);
  return inMemory || (await needles.inFolder(world.dataOf(name))).size > 0;
};

const notices: NoticeView[] = [];

beforeAll(async () => {
  world = await createWorld();
  alice = await world.profile("alice");
  bob = await world.profile("bob");
  me(alice).on("notice", (notice) => void notices.push(notice));
  await pair(me(alice), me(bob), "code");
  await say(me(bob), me(alice), "hello");
}, 120_000);
afterAll(() => world[Symbol.asyncDispose]());

describe("a verified contact with a new key", () => {
  test("is told nothing until Alice approves, and then everything once and in order", {
    timeout: counted(180_000, 900_000),
  }, async () => {
    const begun = performance.now();
    const [aliceId, bobId] = [me(alice).userId, me(bob).userId];
    await me(alice).call("contacts.verify", { userId: bobId });
    await me(bob).call("contacts.verify", { userId: aliceId });
    const before = { atAlice: await contactOf(alice, bobId), atBob: await contactOf(bob, aliceId) };
    expect(before.atAlice).toMatchObject({ verified: true, keyChanged: false });
    expect(before.atAlice.safetyNumber).toMatch(/^\d{60}$/);
    expect(before.atAlice.safetyNumber).toBe(before.atBob.safetyNumber);

    const send = async (from: number, to: number): Promise<void> => {
      for (let n = from; n < to; n++) await me(alice).call("messages.send", { chatId: bobId, text: textOf(n) });
    };
    // A quarter while he is there, a quarter of which some have arrived when his computer is gone.
    await send(0, QUARTER);
    await me(bob).until("the first one", async () => ((await textsOf(bob, aliceId)).includes(textOf(0)) ? true : null));
    if (process.platform === "linux") expect(await knows(bob, "bob")).toBe(true);
    await Promise.all([send(QUARTER, 2 * QUARTER), me(bob).kill()]);
    await send(2 * QUARTER, 3 * QUARTER);
    await me(alice).until(
      "the mailbox",
      async () => ((await statesOf(2 * QUARTER)).has("queued") ? null : true),
      PATIENCE_MS,
    );
    const old = await openProfileDatabase(world.dataOf("bob"));
    const hadOld = numbersIn(
      old.sql
        .prepare<[string], string>("SELECT text FROM messages WHERE chat_id = ? ORDER BY position")
        .pluck()
        .all(aliceId),
    );
    const seed = new AccountTable(old).seed();
    old.dispose();
    const underOldKey = inMailbox();
    expect(underOldKey.length).toBeGreaterThanOrEqual(QUARTER);

    // A new installation, which has nothing of the old one but the account key.
    const fresh = await world.profile("bob again");
    await fresh.stop();
    await changeProfile(
      world.dataOf("bob again"),
      `UPDATE account SET private_key = x'${Buffer.from(seed ?? []).toString("hex")}'`,
    );
    expect(new Set(await opensOf("bob again", underOldKey))).toEqual(new Set(["no_session"]));
    bob = await world.profile("bob again");
    expect(me(bob).userId).toBe(bobId);
    // Meanwhile Alice writes on, and cannot know it yet.
    const { link } = await me(alice).call("invites.create", {});
    await Promise.all([
      send(3 * QUARTER, BLOCKED_FROM),
      me(bob).call("invites.accept", { invite: link }),
      me(alice).until(
        "the changed key",
        async () => ((await contactOf(alice, bobId)).keyChanged ? true : null),
        PATIENCE_MS,
      ),
    ]);

    // Blocked, and shown to be.
    const changed = await contactOf(alice, bobId);
    expect(changed).toMatchObject({ verified: false, keyChanged: true, state: "accepted" });
    expect(notices).toContainEqual(expect.objectContaining({ type: "identity_changed", level: "warning" }));
    expect(await errorOf(me(alice).call("contacts.verify", { userId: bobId }))).toBe("key_changed");
    const after = await contactOf(bob, aliceId);
    expect(changed.safetyNumber).not.toBe(before.atAlice.safetyNumber);
    expect(after.safetyNumber).not.toBe(before.atBob.safetyNumber);
    expect(after.safetyNumber).toBe(changed.safetyNumber);
    const path = join(world.dir, `${secret}.txt`);
    await writeFile(path, `${secret} in a file`);
    await send(BLOCKED_FROM, AWAY_FROM);
    const { fileId } = await me(alice).call("files.share", { chatId: bobId, path });
    await briefly();
    expect(await statesOf(BLOCKED_FROM)).toEqual(new Set(["queued"]));
    expect(await textsOf(bob, aliceId)).toEqual([]);
    expect((await me(bob).call("files.list", {})).map((file) => file.fileId)).toEqual([]);
    expect(await knows(bob, "bob again")).toBe(false);
    const mayHaveLinked = await me(alice).call("links.list", {});
    expect(mayHaveLinked.filter(({ state }) => state === "connected")).toEqual([]);

    // Nor is anything left for him at the server.
    await me(bob).kill();
    const waiting = inMailbox().map(({ id }) => id);
    await send(AWAY_FROM, MESSAGES);
    await briefly();
    expect(inMailbox().map(({ id }) => id)).toEqual(waiting);
    const kept = inMailbox();
    expect((await opensOf("bob again", kept)).filter((outcome) => outcome === "opened")).toEqual([]);
    expect(await statesOf(BLOCKED_FROM)).toEqual(new Set(["queued"]));
    await me(alice).stop();
    alice = await world.profile("alice");
    expect(await contactOf(alice, bobId)).toMatchObject({ verified: false, keyChanged: true });
    await briefly();
    expect(inMailbox().map(({ id }) => id)).toEqual(waiting);

    // Alice has compared the numbers and approves: what waits is sealed for the new key.
    await me(alice).call("contacts.accept", { userId: bobId });
    expect(await contactOf(alice, bobId)).toMatchObject({ verified: false, keyChanged: false });
    bob = await world.profile("bob again");
    const had = await me(bob).until(
      "everything",
      async () => {
        const numbers = numbersIn(await textsOf(bob, aliceId));
        return numbers.at(-1) === MESSAGES - 1 ? numbers : null;
      },
      PATIENCE_MS,
    );
    const [first = 0] = had;
    expect(had).toEqual(range(first, MESSAGES));
    // Nothing fell between the two: what the new one was not given, the old one had.
    expect(hadOld).toEqual(range(0, hadOld.length));
    expect(first).toBeLessThanOrEqual(hadOld.length);
    expect(first).toBeLessThanOrEqual(2 * QUARTER);
    await me(bob).until("the file", async () =>
      (await me(bob).call("files.list", {})).some((file) => file.fileId === fileId && file.name === `${secret}.txt`)
        ? true
        : null,
    );
    if (process.platform === "linux") expect(await knows(bob, "bob again")).toBe(true);
    await me(alice).until("delivery", async () => {
      const states = await statesOf(0);
      return states.has("queued") || states.has("sent") ? null : true;
    });
    await say(me(bob), me(alice), "it is me");
    expect((await contactOf(bob, aliceId)).safetyNumber).toBe((await contactOf(alice, bobId)).safetyNumber);
    process.stderr.write(
      `new key: ${MESSAGES} messages in ${Math.round((performance.now() - begun) / 1000)} s; ${hadOld.length} had arrived ` +
        `under the old key, ${had.length} arrived once and in order after the approval, 0 before\n`,
    );
  });
});
