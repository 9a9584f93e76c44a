import { createHash, createHmac, randomBytes } from "node:crypto";
import { wordlist } from "@scure/bip39/wordlists/english.js";
import fc from "fast-check";
import { expect, test } from "vitest";
import { PROFILE_NAME_LENGTH_MAX } from "#shared/base/limits.ts";
import { cleanName } from "../../src-main/contacts/display-name.ts";
import { sameServer } from "../../src-main/contacts/invites.ts";
import { commitTo, inviteMac, isInviteMac, type Party, safetyWords } from "../../src-main/contacts/pairing.ts";
import { userIdOf } from "../../src-main/crypto/identity.ts";

const party = (): Party => ({ accountKey: randomBytes(32), identityKey: randomBytes(33) });
const [alice, bob] = [userIdOf(randomBytes(32)), userIdOf(randomBytes(32))];

test("the proof is HMAC-SHA256 over both user ids and fits nobody else", () => {
  const secret = randomBytes(32);
  const mac = inviteMac(secret, alice, bob);
  const expected = createHmac("sha256", secret).update(`weir invite v1\0${alice}\0${bob}`).digest();
  expect(Buffer.from(mac).equals(expected)).toBe(true);
  expect(isInviteMac(mac, secret, alice, bob)).toBe(true);
  expect(isInviteMac(mac, secret, bob, alice)).toBe(false);
  expect(isInviteMac(mac, randomBytes(32), alice, bob)).toBe(false);
  expect(isInviteMac(mac.slice(1), secret, alice, bob)).toBe(false);
});

test("the commitment is a domain-separated SHA-256", () => {
  const nonce = randomBytes(32);
  const expected = createHash("sha256").update("weir invite nonce v1\0").update(nonce).digest();
  expect(Buffer.from(commitTo(nonce)).equals(expected)).toBe(true);
});

test("words are the same on both sides and change with every input", () => {
  const [a, b] = [party(), party()];
  const nonces = { inviter: randomBytes(32), requester: randomBytes(32) };
  const words = safetyWords([a, b], nonces);
  expect(words).toHaveLength(4);
  for (const word of words) expect(wordlist).toContain(word);
  expect(safetyWords([b, a], nonces)).toEqual(words);
  const others = [
    safetyWords([party(), b], nonces),
    safetyWords([{ ...a, identityKey: randomBytes(33) }, b], nonces),
    safetyWords([a, b], { ...nonces, inviter: randomBytes(32) }),
    safetyWords([a, b], { ...nonces, requester: randomBytes(32) }),
  ];
  for (const other of others) expect(other).not.toEqual(words);
});

test("words are the first 44 bits of the digest", () => {
  const parties: [Party, Party] = [
    { accountKey: new Uint8Array(32), identityKey: new Uint8Array(33) },
    { accountKey: new Uint8Array(32).fill(1), identityKey: new Uint8Array(33) },
  ];
  const nonces = { inviter: new Uint8Array(32), requester: new Uint8Array(32) };
  const hash = createHash("sha256").update("weir safety words v1\0");
  for (const { accountKey, identityKey } of parties) hash.update(accountKey).update(identityKey);
  const bits = [...hash.update(nonces.inviter).update(nonces.requester).digest()]
    .map((byte) => byte.toString(2).padStart(8, "0"))
    .join("");
  const expected = [0, 1, 2, 3].map((i) => wordlist[Number.parseInt(bits.slice(i * 11, i * 11 + 11), 2)]);
  expect(safetyWords(parties, nonces)).toEqual(expected);
});

test.each([
  ["  Bob   the\tBuilder ", "Bob the Builder"],
  ["\u202eevil\u202c", "evil"],
  ["a\u0000b\u001bc\u007f", "abc"],
  ["\u2066\u2069\u200b\ufeff", "fallback"],
  ["", "fallback"],
  ["Zoë 東京 🦉", "Zoë 東京 🦉"],
  ["\ud800x", "\ufffdx"],
])("name %j is shown as %j", (name, shown) => {
  expect(cleanName(name, "fallback")).toBe(shown);
});

test("any name is short, well-formed, without controls, and cleaning it again changes nothing", () => {
  fc.assert(
    fc.property(fc.string({ unit: "binary", maxLength: 200 }), (name) => {
      const clean = cleanName(name, "fallback");
      expect(clean.length).toBeGreaterThan(0);
      expect(clean.length).toBeLessThanOrEqual(PROFILE_NAME_LENGTH_MAX);
      expect(clean.isWellFormed()).toBe(true);
      expect(clean).not.toMatch(/[\p{Cc}\u202a-\u202e\u2066-\u2069]/u);
      expect(cleanName(clean, "fallback")).toBe(clean);
    }),
    { numRuns: 2000 },
  );
});

test("servers are compared as addresses, not as text", () => {
  expect(sameServer("ws://Example.org:80/", "ws://example.org")).toBe(true);
  expect(sameServer("wss://example.org:443", "wss://example.org/")).toBe(true);
  expect(sameServer("ws://example.org", "wss://example.org")).toBe(false);
  expect(sameServer("ws://example.org:1", "ws://example.org:2")).toBe(false);
  expect(sameServer("ws://example.org/a", "ws://example.org/b")).toBe(false);
  expect(sameServer("", "")).toBe(false);
});
