import { link, lstat, mkdir, open, readFile, rename, unlink } from "node:fs/promises";
import { dirname, join } from "node:path";
import * as v from "valibot";
import { toBase64Url } from "#shared/base/bytes.ts";
import type { Random } from "#shared/base/env.ts";
import { bytesField, decodeJson, encodeJson } from "#shared/wire/json.ts";

/**
 * `key.json` in the data folder: how the 32-byte data key of app.db is kept. Which kind it is was decided when the
 * profile was made; a profile whose key file is missing or unreadable is never given a new key, for its database could
 * then never be opened again.
 */
export const KeyRecordSchema = v.variant("kind", [
  /** The key itself; only the file's mode protects it. */
  v.strictObject({ version: v.literal(1), kind: v.literal("file"), key: bytesField(32) }),
  /** The key under AES-256-GCM with a scrypt key of the passphrase. N, r, p as in RFC 7914. */
  v.strictObject({
    version: v.literal(1),
    kind: v.literal("passphrase"),
    salt: bytesField(16),
    N: v.pipe(v.number(), v.integer(), v.minValue(2 ** 14), v.maxValue(2 ** 20)),
    r: v.literal(8),
    p: v.literal(1),
    nonce: bytesField(12),
    sealed: bytesField(48),
  }),
  /** The key, base64url, encrypted by the operating system's keystore. */
  v.strictObject({ version: v.literal(1), kind: v.literal("keystore"), sealed: bytesField(1, 8192) }),
]);
export type KeyRecord = v.InferOutput<typeof KeyRecordSchema>;

/** The key cannot be had; `message` says what the person can do about it. */
export class VaultError extends Error {
  static override readonly name = "VaultError";
  override readonly name = "VaultError";
}

const KEY_FILE = "key.json";
const DATABASE = "app.db";
const KEY_FILE_BYTES_MAX = 64 * 1024;

/** Makes the folder if need be; it is ours alone. @throws VaultError when it cannot be made. */
export const makeDataDir = async (dataDir: string): Promise<void> => {
  try {
    await mkdir(dataDir, { recursive: true, mode: 0o700 });
    if (process.platform === "win32") return;
    await using folder = await open(dataDir, "r");
    await folder.chmod(0o700);
  } catch (thrown) {
    throw new VaultError(`The data folder ${dataDir} cannot be made or used (${codeOf(thrown)}). Choose another one.`);
  }
};

/** Null when this is a new profile. @throws VaultError */
export const readKeyRecord = async (dataDir: string): Promise<KeyRecord | null> => {
  const path = join(dataDir, KEY_FILE);
  const stats = await lstatOrNull(path);
  if (stats === null) {
    if ((await lstatOrNull(join(dataDir, DATABASE))) === null) return null;
    throw new VaultError(
      `${path} is missing, but there is a profile that was encrypted with it. Put the file back from a backup, or move the profile away to start anew.`,
    );
  }
  if (!stats.isFile() || stats.size > KEY_FILE_BYTES_MAX) throw new VaultError(`${path} is not a key file of Weir.`);
  if (process.platform !== "win32" && (stats.mode & 0o077) !== 0) {
    throw new VaultError(
      `Others on this machine can read ${path}. If nobody has, make it private with: chmod 600 "${path}"`,
    );
  }
  const record = decodeJson(KeyRecordSchema, await readFile(path));
  if (record.ok) return record.value;
  throw new VaultError(`${path} is damaged. Put it back from a backup; without it the profile cannot be opened.`);
};

/**
 * Writes the record whole or not at all, readable by its owner only. A new one never takes the place of another that a
 * second process made meanwhile. @returns false when there was one already and `replace` is false.
 */
export const writeKeyRecord = async (
  dataDir: string,
  record: KeyRecord,
  random: Random,
  { replace }: { replace: boolean },
): Promise<boolean> => {
  const path = join(dataDir, KEY_FILE);
  const temporary = `${path}.${toBase64Url(random.bytes(9))}.tmp`;
  try {
    await using file = await open(temporary, "wx", 0o600);
    await file.writeFile(encodeJson(record));
    await file.sync();
    if (replace) await rename(temporary, path);
    else await link(temporary, path);
  } catch (thrown) {
    if (codeOf(thrown) === "EEXIST") return false;
    throw thrown;
  } finally {
    await unlink(temporary).catch(() => undefined);
  }
  await syncFolder(dirname(path));
  return true;
};

const syncFolder = async (path: string): Promise<void> => {
  // Windows cannot open folders; NTFS journals the rename.
  if (process.platform === "win32") return;
  await using folder = await open(path, "r");
  await folder.sync();
};

const lstatOrNull = async (path: string) => {
  try {
    return await lstat(path);
  } catch (thrown) {
    if (codeOf(thrown) === "ENOENT") return null;
    throw new VaultError(`${path} cannot be read (${codeOf(thrown)}). Check the permissions of the data folder.`);
  }
};

const codeOf = (thrown: unknown): string =>
  thrown instanceof Error && "code" in thrown && typeof thrown.code === "string" ? thrown.code : "unknown error";
