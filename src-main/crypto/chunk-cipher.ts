import { createCipheriv, createDecipheriv, createSecretKey } from "node:crypto";
import { assert } from "#shared/base/assert.ts";
import { type Bytes, freeNow, fromBase64Url } from "#shared/base/bytes.ts";
import type { FileId } from "#shared/base/ids.ts";
import { CHUNK_TAG_BYTES } from "#shared/base/limits.ts";

/**
 * Chunk i of a file = AES-256-GCM(file key, nonce, AAD), ciphertext followed by the 16-byte tag (NIST SP 800-38D).
 *
 *   nonce  8 zero bytes | u32 i
 *   AAD    16 bytes fileId | u32 i | u32 chunkCount      (big-endian)
 *
 * It is deterministic on purpose: every holder of the plaintext rebuilds the same ciphertext, so no second copy is kept for
 * seeding. That is safe only while no (key, i) ever encrypts two plaintexts: every shared file gets a fresh key, and a
 * rebuilt chunk leaves the machine only if it hashes to the leaf that was fixed when the file was shared.
 */
export interface ChunkCipher {
  /** Writes ciphertext and tag (plaintext length + CHUNK_TAG_BYTES) to the start of `target`. */
  encryptInto(target: Uint8Array, index: number, plaintext: Uint8Array): void;
  /** Null when the tag does not fit: another key, another place, or changed bytes. */
  decrypt(index: number, ciphertext: Uint8Array): Uint8Array | null;
}

const ALGORITHM = "aes-256-gcm";
const OPTIONS = { authTagLength: CHUNK_TAG_BYTES };
const FILE_ID_BYTES = 16;

export const createChunkCipher = (fileId: FileId, key: Bytes, chunkCount: number): ChunkCipher => {
  assert(key.length === 32, "a file key has 32 bytes");
  const id = fromBase64Url(fileId);
  assert(id.ok && id.value.length === FILE_ID_BYTES, "a file id has 16 bytes");
  // Prepared once: raw bytes would be checked and wrapped for every chunk.
  const secret = createSecretKey(key);
  // Reused for every chunk: both are read before the call returns.
  const nonce = Buffer.alloc(12);
  const associated = Buffer.alloc(FILE_ID_BYTES + 8);
  associated.set(id.value);
  associated.writeUInt32BE(chunkCount, FILE_ID_BYTES + 4);

  const place = (index: number): void => {
    assert(index >= 0 && index < chunkCount, "chunk index outside the file");
    nonce.writeUInt32BE(index, 8);
    associated.writeUInt32BE(index, FILE_ID_BYTES);
  };

  return {
    encryptInto(target, index, plaintext) {
      place(index);
      const cipher = createCipheriv(ALGORITHM, secret, nonce, OPTIONS);
      cipher.setAAD(associated);
      const body = cipher.update(plaintext);
      assert(body.length === plaintext.length && cipher.final().length === 0, "GCM keeps the length");
      target.set(body);
      freeNow(body);
      target.set(cipher.getAuthTag(), plaintext.length);
    },
    decrypt(index, ciphertext) {
      if (ciphertext.length < CHUNK_TAG_BYTES) return null;
      place(index);
      const bodyBytes = ciphertext.length - CHUNK_TAG_BYTES;
      const decipher = createDecipheriv(ALGORITHM, secret, nonce, OPTIONS);
      decipher.setAAD(associated);
      decipher.setAuthTag(ciphertext.subarray(bodyBytes));
      const body = decipher.update(ciphertext.subarray(0, bodyBytes));
      try {
        decipher.final();
        return body;
      } catch {
        return null;
      }
    },
  };
};
