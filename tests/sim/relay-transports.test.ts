import fc from "fast-check";
import { expect, test } from "vitest";
import { LINK_MESSAGE_BYTES_MAX, RELAY_CREDIT_STEP_BYTES } from "#shared/base/limits.ts";
import { introduce, LoopRelay, loopPair } from "../support/relay-transports.ts";

const RUNS = 150;
const LOW_BYTES = 512 * 1024;

const operation = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      what: fc.constant("send" as const),
      from: fc.constantFrom("dialer" as const, "answerer" as const),
      channel: fc.constantFrom("control" as const, "bulk" as const),
      size: fc.oneof(fc.nat(200), fc.nat(140_000), fc.constantFrom(0, 65_775, 65_776, LINK_MESSAGE_BYTES_MAX)),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ what: fc.constant("grant" as const), bytes: fc.nat(3 * RELAY_CREDIT_STEP_BYTES) }),
  },
  { weight: 2, arbitrary: fc.constant({ what: "wait" as const }) },
);

/** What says which message it is, in the order of its channel and side. */
const numbered = (size: number, index: number): Uint8Array => new Uint8Array(size).fill(index % 251);
const summary = (message: Uint8Array): string => `${message.length}:${message[0] ?? "-"}:${message.at(-1) ?? "-"}`;

test(`whatever is sent in whatever order over ${RUNS} runs arrives whole, in order, within the credit`, async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(operation, { maxLength: 60 }), async (operations) => {
      // It throws when a side sends beyond its credit.
      const relay = new LoopRelay(1);
      const { dialer, answerer } = loopPair(relay);
      await introduce(dialer, answerer);
      const ends = { dialer, answerer };
      const sent = {
        dialer: { control: [] as string[], bulk: [] as string[] },
        answerer: { control: [] as string[], bulk: [] as string[] },
      };
      let queuedOnce = 0;
      for (const [index, op] of operations.entries()) {
        if (op.what === "send") {
          const message = numbered(op.size, index);
          expect(ends[op.from].transport.send(op.channel, message).ok).toBe(true);
          sent[op.from][op.channel].push(summary(message));
          message.fill(255);
          queuedOnce = Math.max(queuedOnce, ends[op.from].transport.bufferedAmount("bulk"));
        } else if (op.what === "grant") relay.grant(relay.credit + op.bytes);
        else await new Promise((resolve) => setImmediate(resolve));
      }
      relay.grant(1e9);
      for (const [from, to] of [
        [dialer, answerer],
        [answerer, dialer],
      ] as const) {
        const mine = from === dialer ? sent.dialer : sent.answerer;
        for (const channel of ["control", "bulk"] as const) {
          await to.until(() => to.messages(channel).length === mine[channel].length || to.all("ended").length > 0);
          expect(to.messages(channel).map(summary)).toEqual(mine[channel]);
          expect(from.transport.bufferedAmount(channel)).toBe(0);
        }
        // One for each time that the queue came down to its mark.
        if (queuedOnce <= LOW_BYTES) expect(from.all("queueLow")).toEqual([]);
      }
      expect([...dialer.all("ended"), ...answerer.all("ended")]).toEqual([]);
    }),
    { numRuns: RUNS },
  );
});
