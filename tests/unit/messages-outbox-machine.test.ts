import { describe, expect, test } from "vitest";
import { LINK_ENVELOPES_IN_FLIGHT_MAX, OUTBOX_RETRY_BASE_MS, OUTBOX_RETRY_MAX_MS } from "#shared/base/limits.ts";
import {
  initialOutbox,
  type OutboxEffect,
  type OutboxEvent,
  type OutboxState,
  step,
  type Work,
} from "../../src-main/messages/outbox-machine.ts";

const state = (change: Partial<OutboxState>): OutboxState => ({ ...initialOutbox, queries: 5, ...change });
const link = (sentSeq: number, ...unacked: number[]) => ({ generation: 3, sentSeq, unacked });
const works: Record<Work["kind"], Work> = {
  idle: { kind: "idle" },
  loading: { kind: "loading", query: 5 },
  sealing: { kind: "sealing", seq: 7 },
  putting: { kind: "putting", seq: 7 },
  full: { kind: "full" },
  blocked: { kind: "blocked" },
  waiting: { kind: "waiting", untilMs: 1000 },
};
const loadUnstored: OutboxEffect = { type: "load", query: 6, afterSeq: null };
const row = (seq: number, sealed: boolean, query = 5): OutboxEvent => ({
  type: "loaded",
  query,
  next: { kind: "row", seq, sealed },
});

describe("the table: what makes it ask for the next row", () => {
  const asks: Record<string, { event: OutboxEvent; from: Work["kind"][]; over: "server" | "link" }> = {
    added: { event: { type: "added" }, from: ["idle"], over: "server" },
    receiptsDue: { event: { type: "receiptsDue" }, from: ["idle"], over: "server" },
    sealed: { event: { type: "sealed", seq: 7 }, from: ["sealing"], over: "server" },
    stored: { event: { type: "stored", seq: 7 }, from: ["putting"], over: "server" },
    linkUp: {
      event: { type: "linkUp", generation: 9 },
      from: ["idle", "loading", "full", "waiting"],
      over: "server",
    },
    linkDown: { event: { type: "linkDown" }, from: ["idle", "loading", "full", "waiting"], over: "link" },
    ackTimeout: {
      event: { type: "ackTimeout", generation: 3 },
      from: ["idle", "loading", "full", "waiting"],
      over: "link",
    },
    resealed: { event: { type: "resealed" }, from: ["idle", "loading", "full", "waiting"], over: "link" },
    acked: { event: { type: "acked", seq: 1 }, from: ["full"], over: "link" },
    woken: { event: { type: "woken" }, from: ["idle", "blocked", "waiting"], over: "server" },
  };
  for (const [name, { event, from, over }] of Object.entries(asks))
    for (const work of Object.values(works))
      test(`${work.kind} + ${name}`, () => {
        const before = state({ server: "up", work, link: over === "link" ? link(2, 1, 2) : null });
        const [after, effects] = step(before, event);
        const asked = effects.some((effect) => effect.type === "load");
        expect(asked).toBe(from.includes(work.kind));
        expect(after.work.kind).toBe(asked ? "loading" : work.kind);
      });
});

describe("ways", () => {
  test("without a way nothing is asked", () => {
    expect(step(state({}), { type: "added" })).toEqual([state({}), []]);
  });
  test("the server: whatever the mailbox does not have", () => {
    expect(step(state({}), { type: "serverUp" })[1]).toEqual([loadUnstored]);
  });
  test("a link: everything from the first row, whatever was stored before", () => {
    const [after, effects] = step(state({ server: "up" }), { type: "linkUp", generation: 3 });
    expect(effects).toEqual([{ type: "load", query: 6, afterSeq: 0 }]);
    expect(after.link).toEqual(link(0));
  });
  test("the same generation told again is no news", () => {
    const before = state({ link: link(4, 4) });
    expect(step(before, { type: "linkUp", generation: 3 })).toEqual([before, []]);
  });
  test("a link that goes hands over to the mailbox", () => {
    const [after, effects] = step(state({ server: "up", link: link(4, 3, 4) }), { type: "linkDown" });
    expect([after.link, effects]).toEqual([null, [loadUnstored]]);
  });
  test("a link that comes while the mailbox is slow takes over when that has ended", () => {
    const putting = state({ server: "up", work: works.putting });
    const [linked, none] = step(putting, { type: "linkUp", generation: 3 });
    expect([linked.work, none]).toEqual([works.putting, []]);
    expect(step(linked, { type: "stored", seq: 7 })[1]).toEqual([{ type: "load", query: 6, afterSeq: 0 }]);
    const failed = step(linked, { type: "putFailed", seq: 7, nowMs: 0, jitter: 0 });
    expect(failed[1]).toEqual([{ type: "load", query: 6, afterSeq: 0 }]);
  });
});

describe("rows", () => {
  test("sealed first, then put", () => {
    const loading = state({ server: "up", work: works.loading });
    expect(step(loading, row(7, false))).toEqual([{ ...loading, work: works.sealing }, [{ type: "seal", seq: 7 }]]);
    expect(step(loading, row(7, true))).toEqual([{ ...loading, work: works.putting }, [{ type: "put", seq: 7 }]]);
  });
  test("over a link the next is asked for at once, up to the window", () => {
    const [after, effects] = step(state({ link: link(6, 6), work: works.loading }), row(7, true));
    expect(effects).toEqual([
      { type: "transmit", seq: 7, generation: 3 },
      { type: "load", query: 6, afterSeq: 7 },
    ]);
    expect(after.link).toEqual(link(7, 6, 7));
    const many = Array.from({ length: LINK_ENVELOPES_IN_FLIGHT_MAX - 1 }, (_, i) => i);
    const [full, last] = step(state({ link: link(6, ...many), work: works.loading }), row(70, true));
    expect(last).toEqual([{ type: "transmit", seq: 70, generation: 3 }]);
    expect(full.work.kind).toBe("full");
  });
  test("an answer to an older question is dropped", () => {
    const loading = state({ server: "up", work: works.loading });
    expect(step(loading, row(7, true, 4))).toEqual([loading, []]);
  });
  test("an end that belongs to another row is dropped", () => {
    for (const event of [
      { type: "sealed", seq: 6 },
      { type: "stored", seq: 6 },
      { type: "sealFailed", seq: 6, nowMs: 0, jitter: 0 },
      { type: "putFailed", seq: 6, nowMs: 0, jitter: 0 },
    ] as const)
      for (const work of [works.sealing, works.putting])
        expect(step(state({ work }), event)).toEqual([state({ work }), []]);
  });
  test("nothing left, nothing allowed", () => {
    const loading = state({ server: "up", work: works.loading });
    const answer = (kind: "none" | "blocked") => step(loading, { type: "loaded", query: 5, next: { kind } })[0].work;
    expect([answer("none"), answer("blocked")]).toEqual([works.idle, works.blocked]);
  });
  test("an acknowledgement frees its place, and one of before frees none", () => {
    const before = state({ link: link(6, 5, 6) });
    expect(step(before, { type: "acked", seq: 5 })[0].link).toEqual(link(6, 6));
    expect(step(before, { type: "acked", seq: 1 })[0].link).toEqual(link(6, 5, 6));
  });
  test("what lost its ciphertext goes again from the first row, with a link and without", () => {
    const [linked, effects] = step(state({ link: link(6, 5, 6) }), { type: "resealed" });
    expect([linked.link, effects]).toEqual([link(0), [{ type: "load", query: 6, afterSeq: 0 }]]);
    expect(step(state({ server: "up" }), { type: "resealed" })[1]).toEqual([loadUnstored]);
  });

  test("what was not acknowledged in time goes again, unless the link is another one by now", () => {
    const before = state({ link: link(6, 5, 6) });
    expect(step(before, { type: "ackTimeout", generation: 3 })[0].link).toEqual(link(0));
    expect(step(before, { type: "ackTimeout", generation: 2 })).toEqual([before, []]);
    expect(step(state({ link: link(6) }), { type: "ackTimeout", generation: 3 })[1]).toEqual([]);
  });
});

test("waits double up to a limit, with jitter, and start anew after a success", () => {
  const waits: number[] = [];
  let current = state({ server: "up" });
  for (let i = 0; i < 12; i++) {
    current = { ...current, work: works.putting };
    const [after, effects] = step(current, { type: "putFailed", seq: 7, nowMs: 1000, jitter: i % 2 });
    for (const effect of effects) if (effect.type === "wakeAt") waits.push(effect.atMs - 1000);
    current = after;
  }
  expect(waits[0]).toBe(OUTBOX_RETRY_BASE_MS / 2);
  expect(waits[1]).toBe(OUTBOX_RETRY_BASE_MS * 2);
  expect(waits[3]).toBe(OUTBOX_RETRY_BASE_MS * 8);
  expect(waits.at(-1)).toBe(OUTBOX_RETRY_MAX_MS);
  expect(step({ ...current, work: works.putting }, { type: "stored", seq: 7 })[0].attempt).toBe(0);
});
