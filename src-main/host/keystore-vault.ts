import { type Bytes, fromBase64Url, toBase64Url } from "#shared/base/bytes.ts";
import type { Random } from "#shared/base/env.ts";
import type { KeyVault } from "../app.ts";
import { type KeyRecord, makeDataDir, readKeyRecord, VaultError, writeKeyRecord } from "./key-file.ts";

/** The operating system's keystore as far as the vault needs it. */
export interface Keystore {
  isAvailable(): Promise<boolean>;
  /** True where the "keystore" is a password that everyone knows (Chromium's basic_text on Linux). */
  isWeak(): boolean;
  encrypt(text: string): Promise<Bytes>;
  /** `stale`: the keystore has a newer key by now; encrypt again. */
  decrypt(sealed: Bytes): Promise<{ text: string; stale: boolean }>;
}

/**
 * Keeps the data key under the system's keystore. Where there is none, the key lies in a private file and the person
 * is told (`weak`); as soon as a keystore is there, the key moves into it.
 */
export const createKeystoreVault = (dataDir: string, keystore: Keystore, random: Random): KeyVault => {
  const protection = () => (keystore.isWeak() ? "weak" : "keystore") as "weak" | "keystore";

  const seal = async (key: Bytes): Promise<KeyRecord> => {
    const sealed = await keystore.encrypt(toBase64Url(key));
    // Read back before anything depends on it: some keyrings accept what they cannot give back.
    const { text } = await keystore.decrypt(sealed);
    if (text !== toBase64Url(key))
      throw new VaultError("The system's keystore does not work. Repair it and try again.");
    return { version: 1, kind: "keystore", sealed };
  };

  const open = async (sealed: Bytes): Promise<{ key: Bytes; stale: boolean }> => {
    try {
      const { text, stale } = await keystore.decrypt(sealed);
      const key = fromBase64Url(text);
      if (key.ok && key.value.length === 32) return { key: key.value, stale };
    } catch {
      // The reason is the keystore's own and differs by system; the sentence below fits all.
    }
    throw new VaultError(
      "The system's keystore does not give back the key of this profile. Unlock the keyring that was in use when the profile was made, and start Weir again.",
    );
  };

  const create = async (available: boolean): Promise<KeyRecord> => {
    const key = random.bytes(32);
    const record: KeyRecord = available ? await seal(key) : { version: 1, kind: "file", key };
    if (await writeKeyRecord(dataDir, record, random, { replace: false })) return record;
    const other = await readKeyRecord(dataDir);
    if (other === null) throw new VaultError("The key file disappeared while it was made. Start Weir again.");
    return other;
  };

  return {
    async load() {
      await makeDataDir(dataDir);
      const available = await keystore.isAvailable();
      const record = (await readKeyRecord(dataDir)) ?? (await create(available));
      switch (record.kind) {
        case "keystore": {
          if (!available) {
            throw new VaultError(
              "The system's keystore is not available. Unlock or start the keyring, then start Weir again.",
            );
          }
          const { key, stale } = await open(record.sealed);
          if (stale) await writeKeyRecord(dataDir, await seal(key), random, { replace: true });
          return { key, protection: protection() };
        }
        case "file": {
          if (!available) return { key: record.key, protection: "weak" };
          await writeKeyRecord(dataDir, await seal(record.key), random, { replace: true });
          return { key: record.key, protection: protection() };
        }
        case "passphrase":
          throw new VaultError(
            "This profile is protected by a passphrase and belongs to the headless program. Start it there, or use another profile.",
          );
      }
    },
  };
};
