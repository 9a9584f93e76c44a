import * as v from "valibot";
import { expect, test } from "vitest";
import { type UserId, UserIdSchema } from "#shared/base/ids.ts";
import { ENVELOPE_RETRY_BASE_MS, MAILBOX_DEFERRED_MAX } from "#shared/base/limits.ts";
import { systemRandom } from "../../src-main/env.ts";
import { Deferrals } from "../../src-main/signaling/deferrals.ts";
import { quietLog } from "../support/files.ts";
import { ManualClock } from "../support/links-fake-rtc.ts";

const user = (n: number): UserId =>
  v.parse(UserIdSchema, n.toString(2).padStart(32, "0").replaceAll("0", "a").replaceAll("1", "b"));

/** What the server was told, and answers that the test gives in its own time. */
const setUp = () => {
  const clock = new ManualClock();
  const told: { senders: UserId[]; answer: (known: boolean) => void }[] = [];
  const deferrals = new Deferrals({ clock, random: systemRandom, log: quietLog }, (senders) => {
    const { promise, resolve } = Promise.withResolvers<boolean>();
    told.push({ senders, answer: resolve });
    return promise;
  });
  const answer = async (known: boolean): Promise<void> => {
    told.at(-1)?.answer(known);
    await clock.advance(0);
  };
  deferrals.connected();
  return { clock, told, deferrals, answer, sets: () => told.map(({ senders }) => senders) };
};
const [a, b] = [user(1), user(2)];

test("rests longer after each failure, and short again after a success", async () => {
  const { clock, deferrals, answer, sets } = setUp();
  for (const factor of [1, 2, 4]) {
    deferrals.defer(a);
    expect(sets().at(-1)).toEqual([a]);
    await answer(true);
    await clock.advance(ENVELOPE_RETRY_BASE_MS * factor - 1);
    expect(deferrals.has(a)).toBe(true);
    await clock.advance(1);
    expect([deferrals.has(a), sets().at(-1)]).toEqual([false, []]);
    await answer(true);
  }
  deferrals.takenIn(a);
  deferrals.defer(a);
  await answer(true);
  await clock.advance(ENVELOPE_RETRY_BASE_MS);
  expect(deferrals.has(a)).toBe(false);
});

test("a sender that is wanted again goes only once the server knew of it: what it pushed until then was dropped", async () => {
  const { deferrals, answer, sets } = setUp();
  deferrals.defer(a);
  deferrals.askAgain(a);
  expect([deferrals.has(a), sets()]).toEqual([true, [[a]]]);
  await answer(true);
  expect([deferrals.has(a), sets()]).toEqual([false, [[a], []]]);
});

test("tells one set at a time, the newest last, and repeats what was not answered", async () => {
  const { clock, deferrals, answer, sets } = setUp();
  deferrals.defer(a);
  deferrals.defer(b);
  expect(sets()).toEqual([[a]]);
  await answer(true);
  expect(sets()).toEqual([[a], [a, b]]);
  await answer(false);
  await clock.advance(ENVELOPE_RETRY_BASE_MS - 1);
  expect(sets()).toHaveLength(2);
  await clock.advance(1);
  expect(sets().at(-1)).toContain(b);
});

test("a new connection starts with nothing, and takes back what an old request may still say", async () => {
  const { clock, deferrals, answer, sets } = setUp();
  deferrals.defer(a);
  deferrals.lost();
  expect([deferrals.has(a), clock.timers]).toEqual([false, 0]);
  deferrals.connected();
  await answer(true);
  expect(sets()).toEqual([[a], []]);
  await answer(true);
  expect([sets().length, clock.timers]).toEqual([2, 0]);
});

test("without a connection nobody is deferred, asked or timed", async () => {
  const { clock, deferrals, answer, sets } = setUp();
  deferrals.defer(a);
  await answer(true);
  deferrals.lost();
  deferrals.defer(b);
  deferrals.askAgain(a);
  await clock.advance(10 * ENVELOPE_RETRY_BASE_MS);
  expect([sets(), clock.timers]).toEqual([[[a]], 0]);
});

test("never defers more than a request can name", async () => {
  const { deferrals, answer, sets } = setUp();
  for (let i = 0; i < MAILBOX_DEFERRED_MAX + 10; i++) deferrals.defer(user(i));
  await answer(true);
  expect(sets().at(-1)).toHaveLength(MAILBOX_DEFERRED_MAX);
  deferrals.dispose();
});
