import pino from "pino";
import { expect, test } from "vitest";
import { RECENT_LOG_ENTRIES } from "#shared/base/limits.ts";
import { createLog, RecentLog } from "../../src-main/log.ts";

const written: string[] = [];
const logger = () => pino({ level: "warn", base: null }, { write: (line: string) => void written.push(line) });

test("the recent log keeps what was not written, with where it came from, and no debug lines", () => {
  const recent = new RecentLog();
  const log = createLog(logger(), recent, { now: () => 7 });
  log.debug("noise");
  log.child("links").info("connected", { path: "lan" });
  log.warn("odd");
  expect(recent.entries()).toEqual([
    { atMs: 7, level: "info", in: "links", message: "connected", fields: { path: "lan" } },
    { atMs: 7, level: "warn", in: null, message: "odd", fields: {} },
  ]);
  expect(written).toHaveLength(1);
  expect(written[0]).toContain('"msg":"odd"');
});

test("the recent log is bounded and keeps the newest", () => {
  const recent = new RecentLog();
  const log = createLog(pino({ level: "silent" }), recent, { now: () => 0 });
  for (let i = 0; i < 5 * RECENT_LOG_ENTRIES + 3; i++) log.info(String(i));
  expect(recent.entries()).toHaveLength(RECENT_LOG_ENTRIES);
  expect(recent.entries().at(-1)?.message).toBe(String(5 * RECENT_LOG_ENTRIES + 2));
});
