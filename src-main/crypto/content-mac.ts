import { createCipheriv, randomBytes } from "node:crypto";
import type { Bytes } from "#shared/base/bytes.ts";

const KEY_BYTES = 32;
/** One key makes one MAC, so it need not vary. */
const NONCE = new Uint8Array(12);

/**
 * A MAC of bytes that are read twice, GMAC (AES-256-GCM without a plaintext): one fifteenth of what SHA-256 takes. It tells
 * whether they are the same both times, under a key that nobody else has and that is used for nothing else.
 */
export class ContentMac {
  readonly #cipher;

  constructor(key: Uint8Array) {
    this.#cipher = createCipheriv("aes-256-gcm", key, NONCE);
  }

  static freshKey(): Bytes {
    return new Uint8Array(randomBytes(KEY_BYTES));
  }

  update(bytes: Uint8Array): void {
    this.#cipher.setAAD(bytes);
  }

  digest(): Bytes {
    this.#cipher.final();
    return new Uint8Array(this.#cipher.getAuthTag());
  }
}
