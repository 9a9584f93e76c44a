import { createHash } from "node:crypto";
import { DIRECTORY_ENTRIES_PER_DEVICE_MAX, DIRECTORY_TTL_MS } from "#shared/base/limits.ts";
import { ok } from "#shared/base/result.ts";
import type { RequestOutput, RequestValue } from "#shared/rendezvous/protocol.ts";
import { type Answer, type Context, refuse, type WriteContext } from "./handler.ts";
import type { Trx } from "./schema.ts";
import { lockAccount } from "./store.ts";

/**
 * Sealed values under opaque keys, for an hour. A key is SHA-256 of a token that only two people can make, so that nobody
 * else finds, watches or replaces what is under it; the server itself needs to know neither of the two for that.
 */
export const putValue = async (
  { trx, env, session }: WriteContext,
  { token, value }: RequestValue<"directory.put">,
): Promise<Answer<RequestOutput<"directory.put">>> => {
  const key = createHash("sha256").update(token).digest();
  const now = env.clock.now();
  await lockAccount(trx, session.userId);
  const { entries } = await trx
    .selectFrom("directory")
    .select((e) => e.fn.countAll<number>().as("entries"))
    .where("user_id", "=", session.userId)
    .where("device_id", "=", session.deviceId)
    .where("expires_at", ">", now)
    .where("key", "!=", key)
    .executeTakeFirstOrThrow();
  if (entries >= DIRECTORY_ENTRIES_PER_DEVICE_MAX) {
    return refuse(
      "directory_full",
      "This device has too many directory entries. They end by themselves within an hour.",
    );
  }
  const row = {
    user_id: session.userId,
    device_id: session.deviceId,
    value,
    expires_at: now + DIRECTORY_TTL_MS,
  };
  await trx
    .insertInto("directory")
    .values({ key, ...row })
    .onConflict((conflict) => conflict.column("key").doUpdateSet(row))
    .execute();
  return ok({ expiresInMs: DIRECTORY_TTL_MS });
};

export const getValue = async (
  { db, env }: Context,
  { key }: RequestValue<"directory.get">,
): Promise<Answer<RequestOutput<"directory.get">>> => {
  const row = await db
    .selectFrom("directory")
    .select("value")
    .where("key", "=", Buffer.from(key))
    .where("expires_at", ">", env.clock.now())
    .executeTakeFirst();
  return ok({ value: row?.value ?? null });
};

export const sweepDirectory = async (trx: Trx, nowMs: number, rows: number): Promise<number> => {
  const result = await trx
    .deleteFrom("directory")
    .where("key", "in", (e) => e.selectFrom("directory").select("key").where("expires_at", "<=", nowMs).limit(rows))
    .executeTakeFirst();
  return Number(result.numDeletedRows);
};
