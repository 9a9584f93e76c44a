import { MessageChannel } from "node:worker_threads";
import rtc from "node-datachannel";
import { afterEach, expect, test } from "vitest";
import { LINK_MESSAGE_BYTES_MAX } from "#shared/base/limits.ts";
import { systemClock, systemRandom } from "../../src-main/env.ts";
import { createRtcDriver, type RtcConnection, type RtcDriver, type RtcEvent } from "../../src-main/links/driver.ts";
import { recordingLog } from "../support/links-world.ts";

const log = recordingLog();
const drivers: RtcDriver[] = [];
const raws: { close(): void }[] = [];
/** The bare library loses and even destroys what nobody references; what a test made stays until its file ends. */
const kept: unknown[] = [];
afterEach(() => {
  for (const raw of raws.splice(0)) raw.close();
  for (const driver of drivers.splice(0)) driver.dispose();
});

const connectionOf = (onEvent: (event: RtcEvent) => void): RtcConnection => {
  const driver = createRtcDriver({ clock: systemClock, random: systemRandom, log });
  drivers.push(driver);
  const opened = driver.open({ iceServers: [], bulkLowBytes: 1000 }, onEvent);
  if (!opened.ok) throw new Error(opened.error.message);
  return opened.value;
};

/** Our driver on one side, the bare library on the other: a peer that can do whatever the library can. */
const againstBare = async (onEvent: (event: RtcEvent) => void) => {
  const bare = new rtc.PeerConnection("bare", {
    iceServers: [],
    maxMessageSize: 4 * 1024 * 1024,
    disableAutoNegotiation: true,
  });
  raws.push(bare);
  kept.push(bare);
  const ready = Promise.withResolvers<void>();
  let open = 0;
  const ours: RtcConnection = connectionOf((event) => {
    if (event.type === "localDescription")
      bare.setRemoteDescription(event.sdp.replace(/max-message-size:\d+/, "max-message-size:4194304"), event.kind);
    if (event.type === "localCandidate") bare.addRemoteCandidate(event.candidate, event.mid);
    if (event.type === "channelOpen" && ++open === 2) ready.resolve();
    onEvent(event);
  });
  const held: [string, string][] = [];
  bare.onStateChange(() => undefined);
  bare.onLocalCandidate((candidate, mid) => held.push([candidate, mid]));
  bare.onLocalDescription((sdp) => {
    setImmediate(() => {
      expect(ours.acceptOffer(sdp).ok).toBe(true);
      for (const [candidate, mid] of held) ours.addRemoteCandidate(candidate, mid);
    });
  });
  const channels = [
    bare.createDataChannel("control", { negotiated: true, id: 0 }),
    bare.createDataChannel("bulk", { negotiated: true, id: 1, unordered: true }),
  ] as const;
  kept.push(...channels);
  const bareReady = channels.map((channel) => {
    channel.onClosed(() => undefined);
    channel.onMessage(() => undefined);
    return new Promise<void>((resolve) => void channel.onOpen(resolve));
  });
  bare.setLocalDescription("offer");
  await Promise.all([ready.promise, ...bareReady]);
  return { bare, ours, control: channels[0], bulk: channels[1] };
};

test("a channel that we did not agree on is closed and cannot block the others", async () => {
  const got = Promise.withResolvers<number>();
  let unexpected = 0;
  const { bare, control } = await againstBare((event) => {
    if (event.type === "unexpectedChannel") unexpected += 1;
    if (event.type === "message" && event.channel === "control") got.resolve(event.bytes?.length ?? -1);
  });
  const junk = bare.createDataChannel("junk", {});
  kept.push(junk);
  const closed = Promise.withResolvers<void>();
  junk.onClosed(() => closed.resolve());
  junk.onMessage(() => undefined);
  // It may be closed before it was ever open here.
  await Promise.race([new Promise<void>((resolve) => void junk.onOpen(resolve)), closed.promise]);
  try {
    for (let i = 0; i < 3000; i += 1) junk.sendMessageBinary(new Uint8Array(100));
  } catch {
    // Closed under our hands: what we are here to see.
  }
  control.sendMessageBinary(new Uint8Array(5));
  expect(await got.promise).toBe(5);
  await closed.promise;
  expect(unexpected).toBe(1);
});

test("a handler that throws at every event keeps the process and the connection alive", async () => {
  let events = 0;
  const { ours, control, bulk } = await againstBare(() => {
    events += 1;
    throw new Error("handler broke");
  });
  const before = events;
  control.sendMessageBinary(new Uint8Array(5));
  bulk.sendMessageBinary(new Uint8Array(5));
  await expect.poll(() => events).toBeGreaterThanOrEqual(before + 2);
  expect(ours.send("control", new Uint8Array(3)).ok).toBe(true);
  expect(log.lines.some((line) => line.includes("handler broke"))).toBe(true);
});

test("text is reported as no message, an oversize message arrives cut, and bytes can be given away", async () => {
  const messages: (Uint8Array<ArrayBuffer> | null)[] = [];
  const { control, bulk } = await againstBare((event) => {
    if (event.type === "message") messages.push(event.bytes);
  });
  control.sendMessage("text");
  await expect.poll(() => messages.length).toBe(1);
  expect(messages[0]).toBeNull();
  bulk.sendMessageBinary(new Uint8Array(LINK_MESSAGE_BYTES_MAX + 5000));
  await expect.poll(() => messages.length).toBe(2);
  const cut = messages[1];
  expect(cut?.length).toBe(LINK_MESSAGE_BYTES_MAX);
  expect(cut?.buffer.byteLength).toBe(LINK_MESSAGE_BYTES_MAX);
  const { port1, port2 } = new MessageChannel();
  if (cut !== undefined && cut !== null) port1.postMessage(cut, [cut.buffer]);
  expect(cut?.length).toBe(0);
  port1.close();
  port2.close();
});

test("every native refusal is a result, before, during and after", async () => {
  const fresh = connectionOf(() => undefined);
  expect(fresh.acceptAnswer("no sdp").ok).toBe(false);
  expect(fresh.acceptOffer("v=0\r\nm=nonsense\r\n").ok).toBe(false);
  expect(fresh.send("control", new Uint8Array(1)).ok).toBe(false);
  expect(fresh.remoteFingerprint()).toBeNull();
  expect(fresh.selectedPair()).toBeNull();
  fresh.close();
  fresh.close();
  expect(fresh.createOffer().ok).toBe(false);
  expect(fresh.addRemoteCandidate("candidate:1 1 UDP 1 127.0.0.1 9 typ host", "0").ok).toBe(true);
  expect(fresh.bufferedAmount("bulk")).toBe(0);
  expect(fresh.bytesReceived()).toBe(0);
  const { ours } = await againstBare(() => undefined);
  expect(ours.addRemoteCandidate("nonsense", "0").ok).toBe(false);
  expect(ours.send("control", new Uint8Array(5 * 1024 * 1024)).ok).toBe(false);
});

test("no event comes after close", async () => {
  let events = 0;
  const { ours, control } = await againstBare(() => {
    events += 1;
  });
  for (let i = 0; i < 500; i += 1) control.sendMessageBinary(new Uint8Array(1000));
  await expect.poll(() => events).toBeGreaterThan(20);
  ours.close();
  const atClose = events;
  await new Promise((resolve) => setTimeout(resolve, 200));
  expect(events).toBe(atClose);
});
