import { createCipheriv } from "node:crypto";
import { expect, test } from "vitest";
import { fromBase64Url, toHex } from "#shared/base/bytes.ts";
import { createChunkCipher } from "../../src-main/crypto/chunk-cipher.ts";
import { freshFileId, freshKey } from "../support/files.ts";

const encrypt = (cipher: ReturnType<typeof createChunkCipher>, index: number, plaintext: Uint8Array): Uint8Array => {
  const target = new Uint8Array(plaintext.length + 16);
  cipher.encryptInto(target, index, plaintext);
  return target;
};

test("a chunk is AES-256-GCM with its index as nonce, and file, index and count as associated data", () => {
  const [fileId, key] = [freshFileId(), freshKey()];
  const plaintext = new Uint8Array(1000).fill(3);
  const id = fromBase64Url(fileId);
  if (!id.ok) throw new Error("no id");
  const nonce = Buffer.alloc(12);
  nonce.writeUInt32BE(77, 8);
  const associated = Buffer.concat([id.value, Buffer.from("0000004d000003e8", "hex")]);
  const reference = createCipheriv("aes-256-gcm", key, nonce).setAAD(associated);
  const expected = Buffer.concat([reference.update(plaintext), reference.final(), reference.getAuthTag()]);
  expect(toHex(encrypt(createChunkCipher(fileId, key, 1000), 77, plaintext))).toBe(toHex(expected));
});

test("a chunk opens only in its own place, with its own key, unchanged", () => {
  const [fileId, key] = [freshFileId(), freshKey()];
  const cipher = createChunkCipher(fileId, key, 10);
  const plaintext = new Uint8Array([1, 2, 3]);
  const sealed = encrypt(cipher, 4, plaintext);
  expect(cipher.decrypt(4, sealed)).toEqual(Buffer.from(plaintext));
  expect(cipher.decrypt(5, sealed)).toBeNull();
  expect(createChunkCipher(fileId, key, 11).decrypt(4, sealed)).toBeNull();
  expect(createChunkCipher(freshFileId(), key, 10).decrypt(4, sealed)).toBeNull();
  expect(createChunkCipher(fileId, freshKey(), 10).decrypt(4, sealed)).toBeNull();
  for (let i = 0; i < sealed.length; i += 1) {
    const bad = new Uint8Array(sealed);
    bad[i] = (bad[i] ?? 0) ^ 1;
    expect(cipher.decrypt(4, bad)).toBeNull();
  }
  expect(cipher.decrypt(4, sealed.subarray(0, 15))).toBeNull();
  expect(() => cipher.decrypt(10, sealed)).toThrow("outside the file");
});
