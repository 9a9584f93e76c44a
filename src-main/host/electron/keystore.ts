import { safeStorage } from "electron";
import type { Keystore } from "../keystore-vault.ts";

/** Electron's safeStorage: Keychain, DPAPI, or libsecret and KWallet. Only its asynchronous calls; the others go away. */
export const electronKeystore: Keystore = {
  isAvailable: () => safeStorage.isAsyncEncryptionAvailable(),
  isWeak: () => process.platform === "linux" && safeStorage.getSelectedStorageBackend() === "basic_text",
  encrypt: async (text) => new Uint8Array(await safeStorage.encryptStringAsync(text)),
  async decrypt(sealed) {
    const { result, shouldReEncrypt } = await safeStorage.decryptStringAsync(Buffer.from(sealed));
    return { text: result, stale: shouldReEncrypt };
  },
};
