import { createPrivateKey, createPublicKey, type KeyObject, sign as signWith, verify as verifyWith } from "node:crypto";
import { sha3_512 } from "@noble/hashes/sha3.js";
import * as v from "valibot";
import { assert } from "#shared/base/assert.ts";
import { type Bytes, concatBytes, toBase32, toHex } from "#shared/base/bytes.ts";
import type { Env } from "#shared/base/env.ts";
import { type UserId, UserIdSchema } from "#shared/base/ids.ts";
import { AccountTable } from "../store/account.ts";
import type { Database } from "../store/database.ts";

/**
 * The account key (Ed25519, RFC 8032) is the root of an identity: it signs the device's Signal keys, file manifests and
 * logins, and the user id is derived from it. SHA-3 comes from JavaScript, because Electron's BoringSSL has none.
 */
export interface Account {
  readonly userId: UserId;
  /** Raw Ed25519 public key, 32 bytes. */
  readonly accountKey: Bytes;
  readonly fingerprint: string;
  /** Ed25519 signature, 64 bytes. */
  sign(bytes: Uint8Array): Bytes;
}

const KEY_BYTES = 32;
const SIGNATURE_BYTES = 64;
const USER_ID_BYTES = 20;
/** DER around a raw key (RFC 8410 section 7 and 4): node:crypto takes keys only in such a wrapping. */
const PKCS8_PREFIX = Uint8Array.from([48, 46, 2, 1, 0, 48, 5, 6, 3, 43, 101, 112, 4, 34, 4, 32]);
const SPKI_PREFIX = Uint8Array.from([48, 42, 48, 5, 6, 3, 43, 101, 112, 3, 33, 0]);

/** base32, lower case, of the first 20 bytes of SHA3-512(account key). */
export const userIdOf = (accountKey: Uint8Array): UserId =>
  v.parse(UserIdSchema, toBase32(sha3_512(accountKey).subarray(0, USER_ID_BYTES)));

/** The whole SHA3-512(account key) in hexadecimal. */
export const fingerprintOf = (accountKey: Uint8Array): string => toHex(sha3_512(accountKey));

/** False for anything that is not a valid signature by this key, malformed keys and signatures included. Never throws. */
export const verifyAccountSignature = (accountKey: Uint8Array, bytes: Uint8Array, signature: Uint8Array): boolean => {
  if (accountKey.length !== KEY_BYTES || signature.length !== SIGNATURE_BYTES) return false;
  try {
    return verifyWith(null, bytes, publicKeyOf(accountKey), signature);
  } catch {
    // OpenSSL answers false for 32 bytes that are no point on the curve; another implementation may refuse them.
    return false;
  }
};

/** The profile's account; a new profile gets a new one, which is stored before it is returned. */
export const loadOrCreateAccount = (db: Database, env: Env): Account => {
  const table = new AccountTable(db);
  const seed = db.transaction(() => {
    const stored = table.seed();
    if (stored !== null) return stored;
    const fresh = env.random.bytes(KEY_BYTES);
    table.insert(fresh, env.clock.now());
    return fresh;
  });
  return accountOf(seed);
};

const accountOf = (seed: Uint8Array): Account => {
  assert(seed.length === KEY_BYTES, "an account seed has 32 bytes");
  const key = createPrivateKey({
    key: Buffer.from(concatBytes(PKCS8_PREFIX, seed)),
    format: "der",
    type: "pkcs8",
  });
  const accountKey = rawPublicKey(key);
  return {
    userId: userIdOf(accountKey),
    accountKey,
    fingerprint: fingerprintOf(accountKey),
    sign: (bytes) => new Uint8Array(signWith(null, bytes, key)),
  };
};

const publicKeyOf = (accountKey: Uint8Array): KeyObject =>
  createPublicKey({ key: Buffer.from(concatBytes(SPKI_PREFIX, accountKey)), format: "der", type: "spki" });

const rawPublicKey = (key: KeyObject): Bytes => {
  const spki = createPublicKey(key).export({ format: "der", type: "spki" });
  assert(spki.length === SPKI_PREFIX.length + KEY_BYTES, "an Ed25519 public key has 32 bytes");
  return new Uint8Array(spki.subarray(SPKI_PREFIX.length));
};
