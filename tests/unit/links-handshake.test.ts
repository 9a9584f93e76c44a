import { createHash, randomBytes } from "node:crypto";
import { expect, test } from "vitest";
import { bytesEqual } from "#shared/base/bytes.ts";
import type { ControlMessage, ControlOf } from "#shared/wire/control.ts";
import {
  type HandshakeFacts,
  type HandshakeKeys,
  startHandshake,
  stepHandshake,
} from "../../src-main/links/handshake.ts";
import { fingerprintOf, pathOf } from "../../src-main/links/sdp.ts";
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

test.each([
  ["127.0.0.1", "127.0.0.1", "lan"],
  ["192.168.1.4", "10.0.0.1", "lan"],
  ["fd00::2", "fe80::1", "lan"],
  ["172.16.0.1", "172.32.0.1", "direct"],
  ["203.0.113.4", "10.0.0.1", "direct"],
  ["100.64.0.1", "100.64.0.2", "direct"],
] as const)("a path from %s to %s is %s", (local, remote, path) => {
  expect(pathOf({ address: local, type: "host" }, { address: remote, type: "host" })).toBe(path);
  expect(pathOf({ address: local, type: "relay" }, { address: remote, type: "host" })).toBe("relay");
});
