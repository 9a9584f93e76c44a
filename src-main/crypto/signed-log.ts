import { createHash } from "node:crypto";
import type { Bytes } from "#shared/base/bytes.ts";
import type { LogCrypto } from "#shared/base/log-crypto.ts";
import { type GroupDraft, type GroupOperation, groupSigningBytes } from "#shared/groups/group-log.ts";
import { type ShareDraft, type ShareOperation, shareSigningBytes } from "#shared/shares/share-log.ts";
import { type Account, userIdOf, verifyAccountSignature } from "./identity.ts";

/** Checks and signs the operations of share lists and groups with account keys. */
export const logCrypto: LogCrypto = {
  hash: (bytes): Bytes => new Uint8Array(createHash("sha256").update(bytes).digest()),
  verify: verifyAccountSignature,
  userIdOf,
};

type Signer = Pick<Account, "accountKey" | "sign">;

export const signShareOperation = (draft: ShareDraft, account: Signer): ShareOperation => {
  const unsigned = { ...draft, actorKey: account.accountKey };
  return { ...unsigned, signature: account.sign(shareSigningBytes(unsigned)) };
};

export const signGroupOperation = (draft: GroupDraft, account: Signer): GroupOperation => {
  const unsigned = { ...draft, actorKey: account.accountKey };
  return { ...unsigned, signature: account.sign(groupSigningBytes(unsigned)) };
};
