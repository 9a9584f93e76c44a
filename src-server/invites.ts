import { assert } from "#shared/base/assert.ts";
import type { Random } from "#shared/base/env.ts";
import { INVITE_CODE_ALPHABET, INVITE_CODE_LENGTH, INVITE_TTL_MS, INVITES_OPEN_MAX } from "#shared/base/limits.ts";
import { ok } from "#shared/base/result.ts";
import type { RequestOutput, RequestValue } from "#shared/rendezvous/protocol.ts";
import { type Answer, refuse, type WriteContext } from "./handler.ts";
import type { Trx } from "./schema.ts";
import { forUpdate, lockAccount } from "./store.ts";

/** Short spoken codes that lead to an invitation: single use, INVITE_TTL_MS, and too few tries to guess one. */
const SYMBOLS = INVITE_CODE_ALPHABET.length;
assert(SYMBOLS === 32, "a byte must map to the alphabet without bias");
/** Two of 2^30 codes collide rarely; eight times in a row means that the source of randomness is broken. */
const CODE_ATTEMPTS = 8;

export const createInvite = async (
  { trx, env, session }: WriteContext,
  { inviteId, commitment }: RequestValue<"invites.create">,
): Promise<Answer<RequestOutput<"invites.create">>> => {
  const now = env.clock.now();
  await lockAccount(trx, session.userId);
  const open = await trx
    .selectFrom("invites")
    .select(["code", "invite_id", "commitment", "expires_at"])
    .where("user_id", "=", session.userId)
    .where("expires_at", ">", now)
    .execute();
  const same = open.find((invite) => invite.invite_id.equals(inviteId));
  if (same !== undefined) {
    if (same.commitment.equals(commitment)) return ok({ code: same.code, expiresAtMs: same.expires_at });
    return refuse("conflict", "This invitation exists with other contents. Make a new one.");
  }
  if (open.length >= INVITES_OPEN_MAX) {
    return refuse("too_many_invites", "Too many invitations are open. Wait until one was used or has expired.");
  }
  // An expired one of the same id, which the sweep has not met yet.
  await trx
    .deleteFrom("invites")
    .where("user_id", "=", session.userId)
    .where("invite_id", "=", Buffer.from(inviteId))
    .execute();
  const code = await freeCode(trx, env.random);
  const expiresAtMs = now + INVITE_TTL_MS;
  await trx
    .insertInto("invites")
    .values({ code, user_id: session.userId, invite_id: inviteId, commitment, expires_at: expiresAtMs })
    .execute();
  return ok({ code, expiresAtMs });
};

/** A code that no invitation has, expired ones included. */
const freeCode = async (trx: Trx, random: Random): Promise<string> => {
  for (let attempt = 0; attempt < CODE_ATTEMPTS; attempt++) {
    const code = [...random.bytes(INVITE_CODE_LENGTH)]
      .map((byte) => INVITE_CODE_ALPHABET.charAt(byte % SYMBOLS))
      .join("");
    const taken = await trx.selectFrom("invites").select("code").where("code", "=", code).executeTakeFirst();
    if (taken === undefined) return code;
  }
  throw new Error("no free invite code: the source of randomness repeats itself");
};

export const resolveInvite = async (
  { trx, env, rates, session }: WriteContext,
  input: RequestValue<"invites.resolve">,
): Promise<Answer<RequestOutput<"invites.resolve">>> => {
  const waitMs = await rates.codeTry(session.userId, session.address);
  if (waitMs !== null) {
    return refuse("rate_limited", "Too many wrong codes were tried. Wait ten minutes, then ask for a new code.");
  }
  const open = trx
    .selectFrom("invites")
    .innerJoin("accounts", "accounts.user_id", "invites.user_id")
    .select(["invites.code", "invites.invite_id", "invites.commitment", "invites.user_id", "accounts.account_key"])
    .where("code", "=", input.code.toUpperCase())
    .where("expires_at", ">", env.clock.now())
    // One's own code is no invitation; it stays open for the other person.
    .where("invites.user_id", "!=", session.userId);
  const invite = await forUpdate(trx, open).executeTakeFirst();
  if (invite === undefined) {
    // One sentence for every cause: it must not tell which codes exist or existed.
    return refuse("unknown_code", "This code is mistyped, used or older than ten minutes. Ask for a new code.");
  }
  await trx.deleteFrom("invites").where("code", "=", invite.code).execute();
  await rates.rightCode(session.userId, session.address);
  return ok({
    inviteId: invite.invite_id,
    userId: invite.user_id,
    accountKey: invite.account_key,
    commitment: invite.commitment,
  });
};

export const sweepInvites = async (trx: Trx, nowMs: number, rows: number): Promise<number> => {
  const result = await trx
    .deleteFrom("invites")
    .where("code", "in", (e) => e.selectFrom("invites").select("code").where("expires_at", "<=", nowMs).limit(rows))
    .executeTakeFirst();
  return Number(result.numDeletedRows);
};
