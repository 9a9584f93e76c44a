import { createPublicKey, type KeyObject, verify } from "node:crypto";
import { sha3_512 } from "@noble/hashes/sha3.js";
import { type Bytes, toBase32 } from "#shared/base/bytes.ts";

/** Header of an Ed25519 SubjectPublicKeyInfo (RFC 8410); the 32 bytes of the key follow. */
const SPKI_HEADER = Buffer.from("302a300506032b6570032100", "hex");
const USER_ID_BYTES = 20;

/** The user id that belongs to an Ed25519 account key. */
export const userIdOf = (accountKey: Uint8Array): string => toBase32(sha3_512(accountKey).subarray(0, USER_ID_BYTES));

const keyObjectOf = (accountKey: Uint8Array): KeyObject =>
  createPublicKey({ key: Buffer.concat([SPKI_HEADER, accountKey]), format: "der", type: "spki" });

/** False for a wrong signature and for bytes that are no key at all. */
export const verifySignature = (accountKey: Bytes, bytes: Uint8Array, signature: Uint8Array): boolean => {
  try {
    return verify(null, bytes, keyObjectOf(accountKey), signature);
  } catch {
    return false;
  }
};
