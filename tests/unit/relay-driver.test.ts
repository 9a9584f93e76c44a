import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import { LINK_MESSAGE_BYTES_MAX, RELAY_CREDIT_STEP_BYTES, RELAY_WINDOW_BYTES } from "#shared/base/limits.ts";
import { decodeRelayDescription, encodeRelayDescription, newHalf } from "../../src-main/links/relay-cipher.ts";
import { fingerprintOf, pathOf } from "../../src-main/links/sdp.ts";
import { isRelayDescription } from "../../src-main/links/transport.ts";
import { newRelayId } from "../support/relay-ends.ts";
import { introduce, LoopRelay, loopPair } from "../support/relay-transports.ts";
import { bytes, createIdentity } from "../support/rendezvous.ts";

const digest = (data: Uint8Array): string => createHash("sha256").update(data).digest("hex");
const open = async (relay = new LoopRelay()) => {
  const pair = loopPair(relay);
  await introduce(pair.dialer, pair.answerer);
  return pair;
};

describe("a link over the relay", () => {
  it("carries messages of every size, in the order of each channel, in buffers of their own", async () => {
    const { dialer, answerer } = await open();
    const sizes = [0, 1, 65_535, 65_572, 65_776, 200_000, LINK_MESSAGE_BYTES_MAX];
    const control = sizes.map((size) => bytes(size));
    const bulk = sizes.map((size) => bytes(size));
    for (const [i, message] of control.entries()) {
      expect(dialer.transport.send("bulk", bulk[i] ?? message).ok).toBe(true);
      expect(dialer.transport.send("control", message).ok).toBe(true);
    }
    const back = bytes(70_000);
    answerer.transport.send("bulk", back);
    await answerer.until(() => answerer.messages("control").length + answerer.messages("bulk").length === 14);
    expect(answerer.messages("control").map(digest)).toEqual(control.map(digest));
    expect(answerer.messages("bulk").map(digest)).toEqual(bulk.map(digest));
    for (const message of answerer.messages("bulk")) expect(message.buffer.byteLength).toBe(message.length);
    await dialer.until(() => dialer.messages("bulk").length === 1);
    expect(dialer.messages("bulk")).toEqual([back]);
  });

  it("copies what it is given, and refuses what no message may be", async () => {
    const relay = new LoopRelay(1);
    const { dialer, answerer } = await open(relay);
    const message = bytes(1000);
    const before = new Uint8Array(message);
    dialer.transport.send("control", message);
    message.fill(0);
    relay.grant(1e9);
    await answerer.first("message");
    expect(answerer.messages("control")).toEqual([before]);
    expect(dialer.transport.send("bulk", new Uint8Array(LINK_MESSAGE_BYTES_MAX + 1)).ok).toBe(false);
  });

  it("tells what the handshake and the view need: fingerprints of both ends and the path", async () => {
    const { dialer, answerer } = await open();
    const [offer, answer] = [await dialer.first("localDescription"), await answerer.first("localDescription")];
    expect([offer.kind, answer.kind]).toEqual(["offer", "answer"]);
    expect([offer.sdp, answer.sdp].map(isRelayDescription)).toEqual([true, true]);
    expect(answerer.transport.remoteFingerprint()).toBe(fingerprintOf(offer.sdp));
    expect(dialer.transport.remoteFingerprint()).toBe(fingerprintOf(answer.sdp));
    expect(fingerprintOf(offer.sdp)).not.toBe(fingerprintOf(answer.sdp));
    for (const { transport } of [dialer, answerer]) {
      const pair = transport.selectedPair();
      expect(pair === null ? null : pathOf(pair.local, pair.remote)).toBe("relay");
    }
  });

  it("sends no more than its credit, control messages first, and says when the queue is low again", async () => {
    const relay = new LoopRelay(RELAY_CREDIT_STEP_BYTES);
    const { dialer, answerer } = await open(relay);
    for (let i = 0; i < 30; i++) dialer.transport.send("bulk", new Uint8Array(65_000).fill(i));
    dialer.transport.send("control", Uint8Array.of(7));
    expect(dialer.transport.bufferedAmount("bulk")).toBe(28 * 65_000);
    expect(dialer.transport.bufferedAmount("control")).toBe(1);
    await answerer.first("message");
    expect(answerer.messages("control")).toEqual([]);
    relay.grant(2 * RELAY_CREDIT_STEP_BYTES);
    await answerer.until(() => answerer.messages("control").length === 1);
    expect(answerer.messages("bulk").length).toBeLessThan(5);
    expect(dialer.all("queueLow")).toEqual([]);
    relay.grant(1e9);
    await answerer.until(() => answerer.messages("bulk").length === 30);
    expect(answerer.messages("bulk").map(([first]) => first)).toEqual(Array.from({ length: 30 }, (_, i) => i));
    expect(dialer.all("queueLow")).toEqual([{ type: "queueLow", channel: "bulk" }]);
    expect(dialer.transport.bufferedAmount("bulk")).toBe(0);
  });

  it("acknowledges what it took in, in steps", async () => {
    const { relay, dialer, answerer } = await open();
    for (let i = 0; i < 8; i++) dialer.transport.send("bulk", bytes(65_000));
    await answerer.until(() => answerer.messages("bulk").length === 8);
    expect(relay.acknowledged.length).toBe(2);
    expect(relay.acknowledged).toEqual(relay.acknowledged.toSorted((a, b) => a - b));
    expect(relay.acknowledged[0]).toBeGreaterThanOrEqual(RELAY_CREDIT_STEP_BYTES);
  });

  it("keeps what comes before the answer, and no more than the other side has credit for", async () => {
    for (const frames of [1, 20]) {
      const { dialer, answerer, relay } = loopPair();
      dialer.transport.createOffer();
      answerer.transport.acceptOffer((await dialer.first("localDescription")).sdp);
      await answerer.until(() => answerer.isOpen);
      for (let i = 0; i < frames; i++) answerer.transport.send("bulk", bytes(65_000));
      await new Promise((resolve) => setImmediate(() => setImmediate(resolve)));
      if (frames * 65_000 > RELAY_WINDOW_BYTES) {
        expect((await dialer.first("ended")).detail).toBe("early_frames");
        expect(relay.closedBy).toEqual(["opener"]);
      } else {
        dialer.transport.acceptAnswer((await answerer.first("localDescription")).sdp);
        await dialer.first("message");
        expect(dialer.events.map(({ type }) => type)).toEqual([
          "localDescription",
          "channelOpen",
          "channelOpen",
          "message",
        ]);
      }
    }
  });
});

describe("the end of a link over the relay", () => {
  it("is told once with what the relay says, and by nothing after a close", async () => {
    const before = loopPair();
    before.dialer.transport.createOffer();
    await before.dialer.first("localDescription");
    before.relay.end("peer_offline");
    expect(await before.dialer.first("ended")).toEqual({ type: "ended", reason: "failed", detail: "peer_offline" });

    const { relay, dialer, answerer, driver } = await open();
    answerer.transport.send("control", bytes(10));
    dialer.transport.close();
    dialer.transport.close();
    relay.end("closed_by_peer");
    expect(await answerer.first("ended")).toEqual({ type: "ended", reason: "closed", detail: "closed_by_peer" });
    expect(dialer.events.map(({ type }) => type)).toEqual(["localDescription", "channelOpen", "channelOpen"]);
    expect([dialer, answerer].map((end) => end.transport.send("control", bytes(1)).ok)).toEqual([false, false]);
    expect([dialer, answerer].map((end) => end.transport.selectedPair())).toEqual([null, null]);
    driver.dispose();
    expect(driver.toward(createIdentity().userId).open({ iceServers: [], bulkLowBytes: 0 }, () => undefined).ok).toBe(
      false,
    );
  });

  it("comes with the driver's for all, and with a peer's for that peer alone", async () => {
    const { relay, dialer, answerer, driver } = await open();
    const other = driver.toward(createIdentity().userId);
    expect(other.open({ iceServers: [], bulkLowBytes: 0 }, () => undefined).ok).toBe(true);
    other.dispose();
    expect(relay.closedBy).toEqual([]);
    driver.dispose();
    expect(relay.closedBy.toSorted()).toEqual(["accepter", "opener"]);
    expect([...dialer.all("ended"), ...answerer.all("ended")]).toEqual([]);
  });
});

describe("a hostile server", () => {
  const tampering: Record<string, (frame: Uint8Array, index: number, all: Uint8Array[]) => readonly Uint8Array[]> = {
    "changes one": (frame, i) => [i === 3 ? frame.map((byte, at) => (at === 9 ? byte ^ 1 : byte)) : frame],
    "cuts one": (frame, i) => [i === 3 ? frame.subarray(0, -1) : frame],
    "sends the tag alone": (frame, i) => [i === 3 ? frame.subarray(-16) : frame],
    "loses one": (frame, i) => (i === 3 ? [] : [frame]),
    "repeats one": (frame, i) => (i === 3 ? [frame, frame] : [frame]),
    "repeats an old one": (frame, i, all) => (i === 3 ? [all[0] ?? frame] : [frame]),
    "swaps two": (frame, i, all) => (i === 3 ? [] : i === 4 ? [frame, all[3] ?? frame] : [frame]),
  };
  for (const [what, change] of Object.entries(tampering)) {
    it(`that ${what} ends the link, and nothing wrong gets through`, async () => {
      const pair = await open();
      const all: Uint8Array[] = [];
      pair.relay.tamper = (frame, from) => (from === "opener" ? change(frame, all.push(frame) - 1, all) : [frame]);
      for (let i = 0; i < 6; i++) pair.dialer.transport.send("control", new Uint8Array(100).fill(i));
      expect(await pair.answerer.first("ended")).toEqual({ type: "ended", reason: "failed", detail: "bad_frame" });
      const arrived = pair.answerer.messages("control").map(([first]) => first);
      expect(arrived).toEqual([0, 1, 2, 3].slice(0, arrived.length));
      expect(arrived.length).toBeGreaterThanOrEqual(3);
      expect(pair.relay.closedBy).toEqual(["accepter"]);
    });
  }

  it("that sends a side its own frames, or those of another relay, ends the link", async () => {
    const [pair, other] = [await open(), await open()];
    const sent: Uint8Array[] = [];
    for (const { relay } of [pair, other]) {
      relay.tamper = (frame) => {
        sent.push(frame);
        return [];
      };
    }
    pair.dialer.transport.send("control", bytes(100));
    other.dialer.transport.send("control", bytes(100));
    const [own, foreign] = sent;
    if (own === undefined || foreign === undefined) throw new Error("two frames were sent");
    pair.relay.inject("opener", own);
    pair.relay.inject("accepter", foreign);
    expect((await pair.dialer.first("ended")).detail).toBe("bad_frame");
    expect((await pair.answerer.first("ended")).detail).toBe("bad_frame");
  });

  it("sees the same message look different each time", async () => {
    const { relay, dialer, answerer } = await open();
    const seen = new Set<string>();
    relay.tamper = (frame) => {
      seen.add(Buffer.from(frame).toString("hex"));
      return [frame];
    };
    for (let i = 0; i < 5; i++) dialer.transport.send("control", new Uint8Array(64));
    for (let i = 0; i < 5; i++) answerer.transport.send("control", new Uint8Array(64));
    await answerer.until(() => answerer.messages("control").length === 5);
    await dialer.until(() => dialer.messages("control").length === 5);
    expect(seen.size).toBe(10);
  });
});

describe("a description that does not fit", () => {
  it("is refused, and leaves the transport as it was", async () => {
    const { dialer, answerer } = loopPair();
    expect(dialer.transport.acceptAnswer("v=0").ok).toBe(false);
    expect(answerer.transport.acceptOffer("v=0\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel").ok).toBe(false);
    dialer.transport.createOffer();
    expect(dialer.transport.createOffer().ok).toBe(false);
    const { sdp } = await dialer.first("localDescription");
    const ofAnother = encodeRelayDescription({ relayId: newRelayId(), half: newHalf(bytes) });
    expect(dialer.transport.acceptAnswer(ofAnother).ok).toBe(false);
    const offer = decodeRelayDescription(sdp);
    expect(offer.ok && encodeRelayDescription(offer.value) === sdp).toBe(true);
    answerer.transport.acceptOffer(sdp);
    dialer.transport.acceptAnswer((await answerer.first("localDescription")).sdp);
    await dialer.until(() => dialer.isOpen);
    expect(dialer.transport.addRemoteCandidate("candidate:1 1 UDP 1 127.0.0.1 9 typ host", "0").ok).toBe(true);
  });
});
