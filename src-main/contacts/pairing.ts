import { createHash, createHmac, timingSafeEqual } from "node:crypto";
import { wordlist } from "@scure/bip39/wordlists/english.js";
import { defined } from "#shared/base/assert.ts";
import { type Bytes, concatBytes, toHex, utf8 } from "#shared/base/bytes.ts";
import type { UserId } from "#shared/base/ids.ts";

/**
 * The cryptography of invitations. By link: whoever has the link holds a secret, and proves it with a MAC over both user
 * ids; the link names the inviter's identity key, so no server can stand in the middle.
 *
 * By code: the server resolves the code, so it could put itself in the middle with keys of its own. Both people then
 * see different safety words, unless it finds keys and numbers that give the same ones. To keep it from trying many, the
 * inviter commits to its random number before it sees the requester's, and opens the commitment afterwards: one guess
 * per attempt at 2^-44. This is the hash commitment of ZRTP (RFC 6189, section 4.4.1.1) for its short authentication string.
 */
const sha256 = (...parts: Uint8Array[]): Bytes => {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(part);
  return new Uint8Array(hash.digest());
};

/** HMAC-SHA256(secret of the link, "weir invite v1" | inviter | requester). */
export const inviteMac = (secret: Uint8Array, inviter: UserId, requester: UserId): Bytes =>
  new Uint8Array(createHmac("sha256", secret).update(`weir invite v1\0${inviter}\0${requester}`).digest());

export const isInviteMac = (mac: Uint8Array, secret: Uint8Array, inviter: UserId, requester: UserId): boolean => {
  const expected = inviteMac(secret, inviter, requester);
  return mac.length === expected.length && timingSafeEqual(mac, expected);
};

/** SHA-256("weir invite nonce v1" | nonce): binds the inviter to a number that it does not show yet. */
export const commitTo = (nonce: Uint8Array): Bytes => sha256(utf8("weir invite nonce v1\0"), nonce);

/** What an account key signs to vouch for the libsignal identity key that its messages come under. */
export const identitySigningBytes = (userId: UserId, identityKey: Uint8Array): Bytes =>
  concatBytes(utf8(`weir identity v1\0${userId}\0`), identityKey);

export interface Party {
  readonly accountKey: Uint8Array;
  readonly identityKey: Uint8Array;
}

const SAFETY_WORDS = 4;
/** A BIP39 word stands for 11 bits. */
const WORD_BITS = 11n;

/** The same four words on both sides, whoever computes them; 44 bits. */
export const safetyWords = (
  parties: readonly [Party, Party],
  nonces: { inviter: Uint8Array; requester: Uint8Array },
): string[] => {
  const keys = parties.map((party) => concatBytes(party.accountKey, party.identityKey));
  keys.sort((a, b) => (toHex(a) < toHex(b) ? -1 : 1));
  const digest = sha256(utf8("weir safety words v1\0"), ...keys, nonces.inviter, nonces.requester);
  const number = BigInt(`0x${toHex(digest)}`);
  return Array.from({ length: SAFETY_WORDS }, (_, i) => {
    const shift = 256n - WORD_BITS * BigInt(i + 1);
    return defined(wordlist[Number((number >> shift) & (2n ** WORD_BITS - 1n))], "word");
  });
};
