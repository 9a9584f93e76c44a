import { createCipheriv, createDecipheriv, scrypt } from "node:crypto";
import { promisify } from "node:util";
import { type Bytes, concatBytes } from "#shared/base/bytes.ts";
import type { Random } from "#shared/base/env.ts";
import type { KeyVault } from "../../app.ts";
import { type KeyRecord, makeDataDir, readKeyRecord, VaultError, writeKeyRecord } from "../key-file.ts";

/** 128 MiB and about half a second on a small machine: OWASP's first choice for scrypt. */
const SCRYPT_N = 2 ** 17;
const SCRYPT_R = 8;
const TAG_BYTES = 16;
type PassphraseRecord = Extract<KeyRecord, { kind: "passphrase" }>;

/**
 * Without a window there is no keystore to ask, so the data key lies in a private file, or is wrapped by a passphrase
 * from the environment. A passphrase given to a profile that has none yet protects it from then on.
 */
export const createHeadlessVault = (options: {
  readonly dataDir: string;
  readonly passphrase: string | undefined;
  readonly random: Random;
}): KeyVault => {
  const { dataDir, random } = options;
  const passphrase = options.passphrase === undefined || options.passphrase === "" ? null : options.passphrase;

  const create = async (): Promise<KeyRecord> => {
    const key = random.bytes(32);
    const record = passphrase === null ? fileRecord(key) : await seal(key, passphrase, random);
    if (await writeKeyRecord(dataDir, record, random, { replace: false })) return record;
    const other = await readKeyRecord(dataDir);
    if (other === null) throw new VaultError("The key file disappeared while it was made. Start Weir again.");
    return other;
  };

  return {
    async load() {
      await makeDataDir(dataDir);
      const record = (await readKeyRecord(dataDir)) ?? (await create());
      switch (record.kind) {
        case "file":
          if (passphrase === null) return { key: record.key, protection: "file" };
          await writeKeyRecord(dataDir, await seal(record.key, passphrase, random), random, { replace: true });
          return { key: record.key, protection: "passphrase" };
        case "passphrase":
          if (passphrase === null) {
            throw new VaultError("This profile is protected by a passphrase. Give it in WEIR_PASSPHRASE.");
          }
          return { key: await unseal(record, passphrase), protection: "passphrase" };
        case "keystore":
          throw new VaultError(
            "The key of this profile is in the system's keystore, which only the desktop window can open. Use another --data folder.",
          );
      }
    },
  };
};

const fileRecord = (key: Bytes): KeyRecord => ({ version: 1, kind: "file", key });

const seal = async (key: Bytes, passphrase: string, random: Random): Promise<PassphraseRecord> => {
  const salt = random.bytes(16);
  const nonce = random.bytes(12);
  const cipher = createCipheriv("aes-256-gcm", await wrappingKey(passphrase, salt, SCRYPT_N), nonce);
  const sealed = concatBytes(cipher.update(key), cipher.final(), cipher.getAuthTag());
  return { version: 1, kind: "passphrase", salt, N: SCRYPT_N, r: SCRYPT_R, p: 1, nonce, sealed };
};

const unseal = async (record: PassphraseRecord, passphrase: string): Promise<Bytes> => {
  const decipher = createDecipheriv("aes-256-gcm", await wrappingKey(passphrase, record.salt, record.N), record.nonce);
  decipher.setAuthTag(record.sealed.subarray(-TAG_BYTES));
  try {
    return concatBytes(decipher.update(record.sealed.subarray(0, -TAG_BYTES)), decipher.final());
  } catch {
    throw new VaultError("The passphrase in WEIR_PASSPHRASE is wrong, or the key file is damaged.");
  }
};

const scryptAsync = promisify<string, Uint8Array, number, { N: number; r: number; p: number; maxmem: number }, Buffer>(
  scrypt,
);

const wrappingKey = (passphrase: string, salt: Uint8Array, N: number): Promise<Buffer> =>
  // Normalised, so that the same passphrase typed on another system is the same bytes.
  scryptAsync(passphrase.normalize("NFKC"), salt, 32, { N, r: SCRYPT_R, p: 1, maxmem: 256 * SCRYPT_R * N });
