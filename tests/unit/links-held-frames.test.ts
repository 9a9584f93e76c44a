import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { BULK_HEADER_BYTES } from "#shared/wire/frame.ts";
import { HeldFrames } from "../../src-main/links/held-frames.ts";

const action = fc.oneof(
  fc.record({ type: fc.constant("hold" as const), by: fc.option(fc.nat(3)), bytes: fc.nat(200) }),
  fc.record({ type: fc.constant("take" as const), at: fc.nat() }),
  fc.record({ type: fc.constant("close" as const), by: fc.nat(3) }),
);

describe("held frames", () => {
  test("are taken once, end with their connection, and are counted for as long as they are held", () => {
    fc.assert(
      fc.property(fc.array(action, { maxLength: 60 }), (actions) => {
        const frames = new HeldFrames(1000);
        const model = new Map<number, { bytes: Uint8Array; by: number | null }>();
        const all: number[] = [];
        for (const act of actions) {
          if (act.type === "hold") {
            const bytes = new Uint8Array(act.bytes);
            const held = frames.hold(bytes, act.by);
            expect(held.byteLength).toBe(act.bytes);
            expect(all).not.toContain(held.frame);
            all.push(held.frame);
            model.set(held.frame, { bytes, by: act.by });
          } else if (act.type === "take") {
            const frame = all[act.at % Math.max(1, all.length)] ?? 0;
            expect(frames.take(frame)).toBe(model.get(frame)?.bytes ?? null);
            expect(frames.take(frame)).toBeNull();
            model.delete(frame);
          } else {
            frames.closed(act.by);
            for (const [frame, { by }] of model) if (by === act.by) model.delete(frame);
          }
          expect(frames.size).toBe(model.size);
          for (let by = 0; by <= 3; by += 1) {
            const theirs = [...model.values()].filter((held) => held.by === by);
            const bytes = theirs.reduce((sum, held) => sum + held.bytes.length, 0);
            expect(frames.costOf(by)).toBeGreaterThanOrEqual(bytes + theirs.length * BULK_HEADER_BYTES);
            expect(frames.costOf(by) > 0).toBe(theirs.length > 0);
          }
        }
      }),
    );
  });
});
