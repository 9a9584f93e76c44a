import { createSocket } from "node:dgram";
import { once } from "node:events";
import fc from "fast-check";
import { expect, it } from "vitest";
import { LAN_RECORD_TTL_MS } from "#shared/base/limits.ts";
import { systemRandom } from "../../src-main/env.ts";
import { lanRecords, newInstance, readLanAnswers, tagStrings } from "../../src-main/links/lan-record.ts";
import { openLanSocket } from "../../src-main/links/lan-socket.ts";
import { userIdOf } from "../support/links-ids.ts";

it.skipIf(process.platform !== "linux")("packets of any bytes, also damaged ones of ours, do no harm", async () => {
  let calls = 0;
  // Multicast works on the loopback address too, and leaves the network alone.
  const socket = openLanSocket("127.0.0.1", {
    onAsked: () => void calls++,
    onAnswers: (_address, answers) => {
      calls++;
      readLanAnswers(answers);
    },
    onFailed: (reason) => {
      throw new Error(reason);
    },
  });
  const sender = createSocket({ type: "udp4", reuseAddr: true });
  const own = createSocket({ type: "udp4", reuseAddr: true });
  try {
    own.bind(5353);
    await once(own, "listening");
    own.addMembership("224.0.0.251", "127.0.0.1");
    const instance = newInstance(systemRandom);
    const strings = tagStrings([], userIdOf(1), instance, 1, systemRandom);
    const heard = once(own, "message");
    socket.respond(lanRecords(instance, 4000, strings, LAN_RECORD_TTL_MS));
    const [good]: Buffer[] = await heard;
    if (good === undefined) throw new Error("nothing was sent");
    sender.bind(0);
    await once(sender, "listening");
    sender.setMulticastInterface("127.0.0.1");
    const send = (packet: Uint8Array): Promise<void> =>
      new Promise((resolve) => sender.send(packet, 5353, "224.0.0.251", () => resolve()));
    await fc.assert(
      fc.asyncProperty(fc.nat({ max: good.length - 1 }), fc.nat({ max: 255 }), fc.boolean(), async (at, byte, cut) => {
        const damaged = Buffer.from(cut ? good.subarray(0, at) : good);
        if (!cut) damaged[at] = byte;
        await send(damaged);
      }),
      { numRuns: 500 },
    );
    await fc.assert(fc.asyncProperty(fc.uint8Array({ maxLength: 1400 }), send), { numRuns: 300 });
    const before = calls;
    await expect
      .poll(async () => {
        await send(good);
        return calls;
      })
      .toBeGreaterThan(before);
  } finally {
    socket.dispose();
    sender.close();
    own.close();
  }
});
