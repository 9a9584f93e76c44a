import { mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { systemRandom } from "../../src-main/env.ts";
import { createHeadlessVault } from "../../src-main/host/headless/key-vault.ts";
import { VaultError } from "../../src-main/host/key-file.ts";
import { createKeystoreVault, type Keystore } from "../../src-main/host/keystore-vault.ts";

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "weir-vault-"));
});
afterEach(() => rm(dir, { recursive: true, force: true }));

/** A keystore with an XOR for a cipher: what matters here is who is asked, and when. */
const createKeystore = () => {
  const state = { available: true, weak: false, secret: 0x5a, stale: false, encrypted: 0 };
  const flip = (bytes: Uint8Array) => new Uint8Array(bytes.map((byte) => byte ^ state.secret));
  const keystore: Keystore = {
    isAvailable: async () => state.available,
    isWeak: () => state.weak,
    async encrypt(text) {
      state.encrypted++;
      return flip(new TextEncoder().encode(text));
    },
    async decrypt(sealed) {
      const text = new TextDecoder("utf-8", { fatal: true }).decode(flip(sealed));
      return { text, stale: state.stale };
    },
  };
  return { state, keystore };
};
const keyFile = () => readFile(join(dir, "key.json"), "utf8");
const refused = (load: Promise<unknown>) =>
  load.then(
    () => "loaded",
    (error: unknown) => (error instanceof VaultError ? error.message : Promise.reject(error)),
  );

test("the key is made once, lies sealed, and comes back", async () => {
  const { keystore } = createKeystore();
  const vault = createKeystoreVault(dir, keystore, systemRandom);
  const { key, protection } = await vault.load();
  expect(protection).toBe("keystore");
  expect(await keyFile()).not.toContain(Buffer.from(key).toString("base64url"));
  expect((await createKeystoreVault(dir, keystore, systemRandom).load()).key).toEqual(key);
  expect((await stat(join(dir, "key.json"))).mode & 0o777).toBe(0o600);
});

test("basic_text is told as weak", async () => {
  const { keystore, state } = createKeystore();
  state.weak = true;
  expect((await createKeystoreVault(dir, keystore, systemRandom).load()).protection).toBe("weak");
});

test("without a keystore the key lies in a private file, told as weak, and moves as soon as there is one", async () => {
  const { keystore, state } = createKeystore();
  state.available = false;
  const vault = createKeystoreVault(dir, keystore, systemRandom);
  const { key, protection } = await vault.load();
  expect(protection).toBe("weak");
  state.available = true;
  expect(await vault.load()).toEqual({ key, protection: "keystore" });
  expect(await keyFile()).not.toContain(Buffer.from(key).toString("base64url"));
});

test("a locked or changed keyring: words, and the key file stays as it is", async () => {
  const { keystore, state } = createKeystore();
  const vault = createKeystoreVault(dir, keystore, systemRandom);
  const { key } = await vault.load();
  const before = await keyFile();
  state.available = false;
  expect(await refused(vault.load())).toMatch(/not available/);
  state.available = true;
  state.secret = 0x13;
  expect(await refused(vault.load())).toMatch(/Unlock the keyring/);
  expect(await keyFile()).toBe(before);
  state.secret = 0x5a;
  expect((await vault.load()).key).toEqual(key);
});

test("a rotated keystore key: sealed again, same data key", async () => {
  const { keystore, state } = createKeystore();
  const vault = createKeystoreVault(dir, keystore, systemRandom);
  const { key } = await vault.load();
  state.stale = true;
  const sealed = state.encrypted;
  expect((await vault.load()).key).toEqual(key);
  expect(state.encrypted).toBe(sealed + 1);
});

test("a keystore that does not give back what it took is found out before anything depends on it", async () => {
  const { keystore } = createKeystore();
  const broken: Keystore = { ...keystore, decrypt: async () => ({ text: "other", stale: false }) };
  expect(await refused(createKeystoreVault(dir, broken, systemRandom).load())).toMatch(/does not work/);
  await expect(keyFile()).rejects.toThrow();
});

test("a profile of the headless host with a passphrase is refused; a profile whose key file is gone too", async () => {
  const { keystore } = createKeystore();
  await createHeadlessVault({ dataDir: dir, passphrase: "x", random: systemRandom }).load();
  expect(await refused(createKeystoreVault(dir, keystore, systemRandom).load())).toMatch(/passphrase/);
  await rm(join(dir, "key.json"));
  await writeFile(join(dir, "app.db"), "x");
  expect(await refused(createKeystoreVault(dir, keystore, systemRandom).load())).toMatch(/missing/);
});
