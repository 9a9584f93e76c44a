import { hostname } from "node:os";
import { describe, expect, it } from "vitest";
import { LAN_TAG_BYTES, LAN_TAGS_PER_STRING } from "#shared/base/limits.ts";
import { userIdOf } from "../support/links-ids.ts";
import { whyNoNamespaces } from "../support/net/availability.ts";
import { startLanChild } from "../support/net/lan-watch.ts";
import { Network } from "../support/net/network.ts";

const [alice, bob] = [userIdOf(1), userIdOf(2)];
const secret = "5a".repeat(32);
const hostName = hostname().toLowerCase();

describe.skipIf(whyNoNamespaces() !== null)("two people on one local network", { timeout: 30_000 }, () => {
  it("find each other, and whoever listens learns nothing about them", async () => {
    await using network = await Network.create();
    const site = await network.site("port-restricted");
    const [atAlice, atBob, atEve] = [await site.host(), await site.host(), await site.host()];
    await using eve = await startLanChild(atEve, "listen", atEve.address);
    await using stranger = await startLanChild(atEve, "find", bob, alice, "00".repeat(32), "4666");
    await using one = await startLanChild(atAlice, "find", alice, bob, secret, "4001");
    await using two = await startLanChild(atBob, "find", bob, alice, secret, "4002");

    const [found, back] = await Promise.all([
      one.until((line) => "found" in line),
      two.until((line) => "found" in line),
    ]);
    expect(found).toEqual({ found: { peer: bob, address: atBob.address, port: 4002 } });
    expect(back).toEqual({ found: { peer: alice, address: atAlice.address, port: 4001 } });

    // An orderly end takes the name back at once.
    two.process.kill("SIGTERM");
    expect(await one.until((line) => "lost" in line)).toEqual({
      lost: { peer: bob, address: atBob.address, port: 4002 },
    });
    expect(stranger.lines.filter((line) => "found" in line)).toEqual([]);

    const packets = eve.lines.flatMap((line) =>
      line.from === atAlice.address || line.from === atBob.address ? [Buffer.from(String(line.packet), "hex")] : [],
    );
    expect(packets.length).toBeGreaterThan(3);
    const secretBytes = Buffer.from(secret, "hex");
    for (const packet of packets) {
      const text = packet.toString("latin1").toLowerCase();
      // Parts too: a prefix of an id would do to follow somebody.
      for (const id of [alice, bob]) expect(text).not.toContain(id.slice(0, 12));
      if (hostName.length >= 6) expect(text).not.toContain(hostName);
      expect(packet.includes(secretBytes.subarray(0, 8))).toBe(false);
      expect(packet.length).toBeLessThan(LAN_TAGS_PER_STRING * LAN_TAG_BYTES + 250);
    }
    // The announcements of two different people differ in nothing but what is random.
    const shapes = new Set(packets.map((packet) => packet.length).filter((length) => length > 200));
    expect(shapes.size).toBe(1);
  });
});
