import { bytesEqual } from "#shared/base/bytes.ts";
import { MAILBOX_TTL_MS } from "#shared/base/limits.ts";
import { ok } from "#shared/base/result.ts";
import { loginSigningBytes, type RequestOutput, type RequestValue } from "#shared/rendezvous/protocol.ts";
import { userIdOf, verifySignature } from "./account-key.ts";
import { type Answer, refuse } from "./handler.ts";
import { pendingEnvelopes } from "./mailbox.ts";
import type { Store } from "./store.ts";

export interface Challenge {
  readonly nonce: Uint8Array;
  readonly serverId: string;
  /** The Host header of the connection. */
  readonly host: string;
}

type Login = RequestValue<"login">;

/**
 * Checks who logs in. The signature covers nonce, server and the host that the client dialled, so that no other server
 * can use it here. All refusals have one type; the sentences differ because each needs another remedy.
 */
export const checkLogin = (login: Login, challenge: Challenge): Answer<void> => {
  if (login.host.toLowerCase() !== challenge.host.toLowerCase()) {
    return refuse(
      "login_refused",
      "The server was reached under another name than the one dialled. Check the server address; a proxy in front of the server must pass the Host header on.",
    );
  }
  if (userIdOf(login.accountKey) !== login.userId) {
    return refuse(
      "login_refused",
      "The account key does not belong to this user id. Restore the profile from a backup.",
    );
  }
  const signed = loginSigningBytes(challenge.nonce, challenge.serverId, login.host, login.userId);
  if (!verifySignature(login.accountKey, signed, login.signature)) {
    return refuse("login_refused", "The login signature is wrong. Connect again.");
  }
  return ok(undefined);
};

/** Makes the account on its first login. */
export const enterAccount = async (
  store: Store,
  login: Login,
  nowMs: number,
): Promise<Answer<RequestOutput<"login">>> =>
  store.transact("locked", async (trx) => {
    const keyOf = () =>
      trx.selectFrom("accounts").select("account_key").where("user_id", "=", login.userId).executeTakeFirst();
    let account = await keyOf();
    if (account === undefined) {
      await trx
        .insertInto("accounts")
        .values({ user_id: login.userId, account_key: login.accountKey, created_at: nowMs })
        // Another device may be entering for the first time just now.
        .onConflict((conflict) => conflict.column("user_id").doNothing())
        .execute();
      account = await keyOf();
    }
    if (account === undefined || !bytesEqual(account.account_key, login.accountKey)) {
      return refuse("login_refused", "Another account key has this user id at the server. Make a new profile.");
    }
    return ok({
      serverTimeMs: nowMs,
      pendingEnvelopes: await pendingEnvelopes(trx, login.userId, nowMs - MAILBOX_TTL_MS),
    });
  });
