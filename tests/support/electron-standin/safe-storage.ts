import { createCipheriv, createDecipheriv, randomBytes } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { app } from "./app.ts";

/**
 * `safeStorage`, asynchronous calls only: AES-256-GCM with a key beside the profile, in place of a keyring.
 * STANDIN_KEYRING=none: nothing is available; =basic: the weak Linux backend; else a good one.
 */
const keyring = (): string => process.env["STANDIN_KEYRING"] ?? "good";

const key = (): Buffer => {
  const path = join(app.getPath("userData"), ".standin-keyring");
  try {
    return readFileSync(path);
  } catch {
    const made = randomBytes(32);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, made, { mode: 0o600 });
    return made;
  }
};

export const safeStorage = {
  isAsyncEncryptionAvailable: async (): Promise<boolean> => keyring() !== "none",
  getSelectedStorageBackend: (): string => (keyring() === "good" ? "gnome_libsecret" : "basic_text"),
  async encryptStringAsync(text: string): Promise<Buffer> {
    if (keyring() === "none") throw new Error("Encryption is not available");
    const nonce = randomBytes(12);
    const cipher = createCipheriv("aes-256-gcm", key(), nonce);
    const sealed = Buffer.concat([cipher.update(text, "utf8"), cipher.final()]);
    return Buffer.concat([nonce, cipher.getAuthTag(), sealed]);
  },
  async decryptStringAsync(sealed: Buffer): Promise<{ result: string; shouldReEncrypt: boolean }> {
    if (keyring() === "none") throw new Error("Decryption is not available");
    const decipher = createDecipheriv("aes-256-gcm", key(), sealed.subarray(0, 12));
    decipher.setAuthTag(sealed.subarray(12, 28));
    const text = Buffer.concat([decipher.update(sealed.subarray(28)), decipher.final()]);
    return { result: text.toString("utf8"), shouldReEncrypt: false };
  },
};
