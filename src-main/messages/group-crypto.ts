import { createHash } from "node:crypto";
import type { Bytes } from "#shared/base/bytes.ts";
import { type GroupCrypto, type GroupDraft, type GroupOperation, groupSigningBytes } from "#shared/groups/group-log.ts";
import { type Account, userIdOf, verifyAccountSignature } from "../crypto/identity.ts";

export const groupCrypto: GroupCrypto = {
  hash: (bytes): Bytes => new Uint8Array(createHash("sha256").update(bytes).digest()),
  verify: verifyAccountSignature,
  userIdOf,
};

export const signGroupOperation = (
  draft: GroupDraft,
  account: Pick<Account, "accountKey" | "sign">,
): GroupOperation => {
  const unsigned = { ...draft, actorKey: account.accountKey };
  return { ...unsigned, signature: account.sign(groupSigningBytes(unsigned)) };
};
