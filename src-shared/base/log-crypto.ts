import type { Bytes } from "./bytes.ts";

/** What a log of operations that people sign needs, beside its rules. */
export interface LogCrypto {
  /** SHA-256. */
  hash(bytes: Uint8Array): Bytes;
  /** Ed25519. */
  verify(key: Uint8Array, bytes: Uint8Array, signature: Uint8Array): boolean;
  userIdOf(accountKey: Uint8Array): string;
}
