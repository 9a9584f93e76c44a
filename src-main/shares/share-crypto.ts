import { createHash } from "node:crypto";
import type { Bytes } from "#shared/base/bytes.ts";
import type { ShareCrypto, ShareDraft, ShareOperation } from "#shared/shares/share-log.ts";
import { shareSigningBytes } from "#shared/shares/share-log.ts";
import { type Account, userIdOf, verifyAccountSignature } from "../crypto/identity.ts";

export const shareCrypto: ShareCrypto = {
  hash: (bytes): Bytes => new Uint8Array(createHash("sha256").update(bytes).digest()),
  verify: verifyAccountSignature,
  userIdOf,
};

export const signOperation = (draft: ShareDraft, account: Pick<Account, "accountKey" | "sign">): ShareOperation => {
  const unsigned = { ...draft, actorKey: account.accountKey };
  return { ...unsigned, signature: account.sign(shareSigningBytes(unsigned)) };
};
