import { createHash, randomBytes } from "node:crypto";
import { expect, test } from "vitest";
import { bytesEqual } from "#shared/base/bytes.ts";
import { LINK_HELLO_PADDING_MAX, LOCAL_MTU_BYTES } from "#shared/base/limits.ts";
import { type ControlMessage, type ControlOf, decodeControl, encodeControl } from "#shared/wire/control.ts";
import {
  type HandshakeFacts,
  type HandshakeKeys,
  startHandshake,
  stepHandshake,
} from "../../src-main/links/handshake.ts";
import {
  fingerprintOf,
  isLanCandidate,
  natOf,
  parseCandidate,
  pathOf,
  withCandidates,
} from "../../src-main/links/sdp.ts";
import { userIdOf } from "../support/links-ids.ts";

const [alice, bob] = [userIdOf(0), userIdOf(1)];
const print = (seed: number): string =>
  Array.from({ length: 32 }, (_, i) => ((i + seed) & 255).toString(16).toUpperCase().padStart(2, "0")).join(":");

/** A stand-in for signatures that is easy to check by eye: the hash of key and bytes, twice. */
const signWith = (key: string, bytes: Uint8Array): Uint8Array<ArrayBuffer> => {
  const hash = createHash("sha256").update(key).update(bytes).digest();
  return new Uint8Array(Buffer.concat([hash, hash]));
};
const keys = (own: string, theirs: string): HandshakeKeys => ({
  sign: (bytes) => signWith(own, bytes),
  verify: (bytes, signature) => bytesEqual(signWith(theirs, bytes), signature),
});
const facts = (side: "alice" | "bob", changes: Partial<HandshakeFacts> = {}): HandshakeFacts => ({
  localUserId: side === "alice" ? alice : bob,
  peerUserId: side === "alice" ? bob : alice,
  offerGeneration: 7,
  nonce: new Uint8Array(randomBytes(32)),
  runId: `run of ${side}`,
  localFingerprint: print(side === "alice" ? 1 : 2),
  remoteFingerprint: print(side === "alice" ? 2 : 1),
  ...changes,
});

/** Runs both sides against each other; `tamper` sees each message on its way to Alice. */
const shake = (
  forAlice: Partial<HandshakeFacts> = {},
  tamper: (message: ControlMessage) => ControlMessage = (message) => message,
  bobKeys = keys("B", "A"),
) => {
  let [a, helloA] = startHandshake(facts("alice", forAlice));
  let [b, helloB] = startHandshake(facts("bob"));
  const toAlice: ControlMessage[] = [helloB];
  const toBob: ControlMessage[] = [helloA];
  while (toAlice.length + toBob.length > 0) {
    const forA = toAlice.shift();
    if (forA !== undefined) {
      const [next, out] = stepHandshake(a, tamper(forA), keys("A", "B"));
      a = next;
      if (out !== null) toBob.push(out);
    }
    const forB = toBob.shift();
    if (forB !== undefined) {
      const [next, out] = stepHandshake(b, forB, bobKeys);
      b = next;
      if (out !== null) toAlice.push(out);
    }
  }
  return [a, b] as const;
};
const hello =
  (change: Partial<ControlOf<"hello">>) =>
  (message: ControlMessage): ControlMessage =>
    message.type === "hello" ? { ...message, ...change } : message;

test("two honest sides prove each other", () => {
  expect(shake().map((state) => state.step)).toEqual(["proven", "proven"]);
});

test.each([
  ["another user", {}, hello({ userId: userIdOf(5) }), "wrong_user"],
  ["another attempt", {}, hello({ generation: 8 }), "wrong_generation"],
  ["a future version only", {}, hello({ protocol: { min: 2, max: 9 } }), "wrong_version"],
  ["another certificate than the one announced", { remoteFingerprint: print(9) }, undefined, "wrong_proof"],
  ["a certificate of ours that the peer did not see", { localFingerprint: print(9) }, undefined, "wrong_proof"],
] as const)("%s is refused", (_what, change, tamper, reason) => {
  expect(shake(change, tamper)[0]).toEqual({ step: "refused", reason });
});

test("a peer without the account key is refused", () => {
  expect(shake({}, undefined, keys("M", "A"))[0]).toEqual({ step: "refused", reason: "wrong_proof" });
});

test("a proof that was sent back to its maker is refused", () => {
  const [a, ownHello] = startHandshake(facts("alice"));
  const echo = { ...ownHello, userId: bob };
  expect(stepHandshake(a, echo, keys("A", "A"))[0]).toEqual({ step: "refused", reason: "unexpected_message" });
});

test("nothing else passes before the proof", () => {
  const [a] = startHandshake(facts("alice"));
  for (const message of [
    { type: "ping", id: 1 },
    { type: "proof", signature: new Uint8Array(64) },
    { type: "stop", tag: 1 },
    { type: "credit", grantedBytes: 1 },
  ] satisfies ControlMessage[])
    expect(stepHandshake(a, message, keys("A", "B"))[0]).toEqual({ step: "refused", reason: "unexpected_message" });
});

test("a description must name exactly one SHA-256 certificate", () => {
  const line = `a=fingerprint:sha-256 ${print(1)}`;
  expect(fingerprintOf(`v=0\r\n${line}\r\na=mid:0\r\n${line.toLowerCase()}\r\n`)).toBe(print(1));
  expect(fingerprintOf(`v=0\r\n${line}\r\na=fingerprint:sha-256 ${print(2)}\r\n`)).toBeNull();
  expect(fingerprintOf("v=0\r\n")).toBeNull();
});

const nothingKnown = { relays: new Set<string>(), remoteHosts: new Set<string>(), localHosts: new Set<string>() };

test.each([
  ["127.0.0.1", "127.0.0.1", "machine"],
  ["203.0.113.4", "203.0.113.4", "machine"],
  ["192.168.1.4", "10.0.0.1", "lan"],
  ["fd00::2", "fe80::1", "lan"],
  ["172.16.0.1", "172.32.0.1", "direct"],
  ["203.0.113.4", "10.0.0.1", "direct"],
  ["100.64.0.1", "100.64.0.2", "direct"],
] as const)("a path from %s to %s is %s", (local, remote, path) => {
  expect(pathOf({ address: local, type: "host" }, { address: remote, type: "host" })).toBe(path);
  expect(pathOf({ address: local, type: "relay" }, { address: remote, type: "host" })).toBe("relay");
});

test("an end that ICE met before it was announced is what it was announced as", () => {
  const local = { address: "10.0.0.2", type: "host" };
  const remote = { address: "10.9.0.1", type: "prflx" };
  // Behind an address translator with a private address of its own.
  expect(pathOf(local, remote, nothingKnown)).toBe("direct");
  expect(pathOf(local, remote, { ...nothingKnown, remoteHosts: new Set(["10.9.0.1"]) })).toBe("lan");
  expect(pathOf(local, remote, { ...nothingKnown, relays: new Set(["10.9.0.1"]) })).toBe("relay");
  expect(pathOf(local, { address: "10.9.0.1", type: "srflx" }, nothingKnown)).toBe("direct");
});

test("an address of our own leads to this machine, whichever of its interfaces it is of, but not by way of others", () => {
  const known = { ...nothingKnown, localHosts: new Set(["10.0.0.2", "192.168.7.1"]) };
  const remote = { address: "192.168.7.1", type: "host" };
  expect(pathOf({ address: "10.0.0.2", type: "host" }, remote, known)).toBe("machine");
  expect(pathOf({ address: "10.0.0.2", type: "host" }, remote, nothingKnown)).toBe("lan");
  // Two homes with the same private network: the peer is behind another translator.
  expect(pathOf({ address: "203.0.113.4", type: "srflx" }, { ...remote, type: "prflx" }, known)).toBe("direct");
  expect(pathOf({ address: "192.168.7.1", type: "relay" }, remote, known)).toBe("relay");
});

test("a hello that must prove a path does not fit into a packet that passes everywhere, and is understood all the same", () => {
  const [, plain] = startHandshake(facts("alice"));
  const [, large] = startHandshake(facts("alice", { paddingBytes: LOCAL_MTU_BYTES }));
  expect(encodeControl(plain).length).toBeLessThan(1000);
  expect(encodeControl(large).length).toBeGreaterThan(LOCAL_MTU_BYTES);
  expect(decodeControl(encodeControl(large))).toEqual({ ok: true, value: large });
  const endless = { ...large, padding: "0".repeat(LINK_HELLO_PADDING_MAX + 1) };
  expect(decodeControl(encodeControl(endless)).ok).toBe(false);
  expect(shake({ paddingBytes: LOCAL_MTU_BYTES }).map(({ step }) => step)).toEqual(["proven", "proven"]);
});

test("only addresses of one's own private network are candidates of a local network", () => {
  const host = (address: string): string => `candidate:1 1 UDP 2122317823 ${address} 40000 typ host`;
  expect(["192.168.0.7", "fe80::1", "10.1.2.3"].map((address) => isLanCandidate(host(address)))).toEqual([
    true,
    true,
    true,
  ]);
  expect(["203.0.113.4", "2001:db8::1", "garbage"].map((address) => isLanCandidate(host(address)))).toEqual([
    false,
    false,
    false,
  ]);
  expect(isLanCandidate("a=candidate:2 1 UDP 1 10.0.0.1 5 typ srflx raddr 10.0.0.2 rport 5")).toBe(false);
  expect(isLanCandidate("nonsense")).toBe(false);
  const sdp = `v=0\r\na=${host("192.168.0.7")}\r\na=${host("203.0.113.4")}\r\na=mid:0\r\n`;
  expect(withCandidates(sdp, isLanCandidate)).toBe(`v=0\r\na=${host("192.168.0.7")}\r\na=mid:0\r\n`);
});

test("the address translator is guessed from what the servers saw", () => {
  const seen = (...lines: string[]) => lines.flatMap((line) => parseCandidate(line) ?? []);
  const host = "candidate:1 1 UDP 1 192.168.0.7 4000 typ host";
  const mapped = (port: number) => `candidate:2 1 UDP 1 203.0.113.9 ${port} typ srflx raddr 192.168.0.7 rport 4000`;
  expect(natOf(seen(host))).toBe("unknown");
  expect(natOf(seen(host, mapped(5000)))).toBe("unknown");
  expect(natOf(seen(host, mapped(5000), mapped(5001)))).toBe("varies");
  expect(natOf(seen("candidate:1 1 UDP 1 203.0.113.9 4000 typ host"))).toBe("none");
});
