import type { Bytes } from "#shared/base/bytes.ts";
import type { UserId } from "#shared/base/ids.ts";
import { MAILBOX_TTL_MS, PREKEY_REFILL_BELOW, PREKEYS_STORED_MAX } from "#shared/base/limits.ts";
import { ok } from "#shared/base/result.ts";
import {
  type DeviceKeys,
  deviceKeysSigningBytes,
  type PreKeyBundle,
  type RequestOutput,
  type RequestValue,
} from "#shared/rendezvous/protocol.ts";
import { verifySignature } from "./account-key.ts";
import { type Answer, type Context, refuse, type WriteContext } from "./handler.ts";
import { pushTo } from "./push.ts";
import type { Db, DeviceKeysRow, NewOneTimeKey, Trx } from "./schema.ts";
import { forUpdateSkipLocked, lockAccount } from "./store.ts";

/**
 * Prekey bundles. A one-time key is given away at most once: it is taken in the transaction that stores the answer, and
 * its id stays known until no envelope that was sealed with it can still be in a mailbox, so that a repeated upload
 * cannot offer it again.
 */
type Kind = NewOneTimeKey["kind"];
type Left = { oneTimeEc: number; oneTimeKyber: number };

export const publishKeys = async (
  { trx, env, session }: WriteContext,
  input: RequestValue<"keys.publish">,
): Promise<Answer<RequestOutput<"keys.publish">>> => {
  const { userId, deviceId } = session;
  const signed = deviceKeysSigningBytes(input.keys, userId, deviceId);
  if (!verifySignature(session.accountKey, signed, input.keys.signature)) {
    return refuse("bad_signature", "The keys are not signed by this account. Restart Weir; it signs them again.");
  }
  await lockAccount(trx, userId);
  await forgetKeysOfOldIdentity(trx, userId, deviceId, input.keys.identityKey);
  const rows: NewOneTimeKey[] = [
    ...input.oneTimeEc.map(({ id, key }) => ({ ...rowOf("ec", id, key), signature: null })),
    ...input.oneTimeKyber.map(({ id, key, signature }) => ({ ...rowOf("kyber", id, key), signature })),
  ].map((row) => ({ ...row, user_id: userId, device_id: deviceId }));
  if (await hasDuplicates(trx, rows, userId, deviceId)) {
    return refuse("duplicate_key_id", "One of the one-time keys was published before. Make new ones with other ids.");
  }
  await storeDeviceKeys(trx, userId, deviceId, input.keys, env.clock.now());
  for (const row of rows) await trx.insertInto("one_time_keys").values(row).execute();
  const left = await keysLeft(trx, userId, deviceId);
  if (left.oneTimeEc > PREKEYS_STORED_MAX || left.oneTimeKyber > PREKEYS_STORED_MAX) {
    return refuse("conflict", "The server has more than enough one-time keys of this device. Publish none for now.");
  }
  return ok(left);
};

const rowOf = (kind: Kind, id: number, key: Bytes) => ({ kind, key_id: id, key, taken_at: null });

/** One-time keys of another identity can no longer be opened by the device: it was set up anew. */
const forgetKeysOfOldIdentity = async (trx: Trx, userId: string, deviceId: number, identity: Bytes): Promise<void> => {
  const old = await trx
    .selectFrom("device_keys")
    .select("identity_key")
    .where("user_id", "=", userId)
    .where("device_id", "=", deviceId)
    .executeTakeFirst();
  if (old === undefined || old.identity_key.equals(identity)) return;
  await trx.deleteFrom("one_time_keys").where("user_id", "=", userId).where("device_id", "=", deviceId).execute();
};

const hasDuplicates = async (
  trx: Trx,
  rows: readonly NewOneTimeKey[],
  userId: string,
  deviceId: number,
): Promise<boolean> => {
  for (const kind of ["ec", "kyber"] as const) {
    const ids = rows.filter((row) => row.kind === kind).map((row) => row.key_id);
    if (new Set(ids).size !== ids.length) return true;
    if (ids.length === 0) continue;
    const known = await trx
      .selectFrom("one_time_keys")
      .select("key_id")
      .where("user_id", "=", userId)
      .where("device_id", "=", deviceId)
      .where("kind", "=", kind)
      .where("key_id", "in", ids)
      .limit(1)
      .executeTakeFirst();
    if (known !== undefined) return true;
  }
  return false;
};

const storeDeviceKeys = async (trx: Trx, userId: string, deviceId: number, keys: DeviceKeys, now: number) => {
  const row = {
    registration_id: keys.registrationId,
    identity_key: keys.identityKey,
    signed_id: keys.signedPreKey.id,
    signed_key: keys.signedPreKey.key,
    signed_signature: keys.signedPreKey.signature,
    kyber_id: keys.lastResortKyber.id,
    kyber_key: keys.lastResortKyber.key,
    kyber_signature: keys.lastResortKyber.signature,
    signature: keys.signature,
    published_at: now,
  };
  await trx
    .insertInto("device_keys")
    .values({ user_id: userId, device_id: deviceId, ...row })
    .onConflict((conflict) => conflict.columns(["user_id", "device_id"]).doUpdateSet(row))
    .execute();
};

const keysLeft = async (db: Db | Trx, userId: string, deviceId: number): Promise<Left> => {
  const rows = await db
    .selectFrom("one_time_keys")
    .select(["kind", (e) => e.fn.countAll<number>().as("left")])
    .where("user_id", "=", userId)
    .where("device_id", "=", deviceId)
    .where("taken_at", "is", null)
    .groupBy("kind")
    .execute();
  const left = (kind: Kind): number => rows.find((row) => row.kind === kind)?.left ?? 0;
  return { oneTimeEc: left("ec"), oneTimeKyber: left("kyber") };
};

export const keysStatus = async ({ db, session }: Context): Promise<Answer<RequestOutput<"keys.status">>> => {
  const published = await db
    .selectFrom("device_keys")
    .select("device_id")
    .where("user_id", "=", session.userId)
    .where("device_id", "=", session.deviceId)
    .executeTakeFirst();
  return ok({ published: published !== undefined, ...(await keysLeft(db, session.userId, session.deviceId)) });
};

export const fetchBundle = async (
  context: WriteContext,
  { userId }: RequestValue<"keys.fetch">,
): Promise<Answer<RequestOutput<"keys.fetch">>> => {
  const { trx, rates, session } = context;
  const device = await trx
    .selectFrom("device_keys")
    .innerJoin("accounts", "accounts.user_id", "device_keys.user_id")
    .selectAll("device_keys")
    .select("accounts.account_key")
    .where("device_keys.user_id", "=", userId)
    .orderBy("device_keys.device_id")
    .limit(1)
    .executeTakeFirst();
  if (device === undefined) {
    return refuse(
      "unknown_user",
      "This person has not been at this server yet. Ask them to start Weir with the same server, then try again.",
    );
  }
  const waitMs = await rates.bundle(session.userId, userId);
  if (waitMs !== null) {
    const refused = refuse("rate_limited", "The keys of this person were asked for too often. Wait ten minutes.");
    return { ok: false, error: { ...refused.error, retryAfterMs: waitMs } };
  }
  const ec = await takeKey(context, device, "ec");
  const kyber = await takeKey(context, device, "kyber");
  await warnWhenLow(context, device);
  return ok({
    userId,
    deviceId: device.device_id,
    accountKey: device.account_key,
    keys: keysOf(device),
    oneTimeEc: ec && { id: ec.key_id, key: ec.key },
    oneTimeKyber:
      kyber === null || kyber.signature === null
        ? null
        : { id: kyber.key_id, key: kyber.key, signature: kyber.signature },
  } satisfies PreKeyBundle);
};

const keysOf = (row: DeviceKeysRow): DeviceKeys => ({
  registrationId: row.registration_id,
  identityKey: row.identity_key,
  signedPreKey: { id: row.signed_id, key: row.signed_key, signature: row.signed_signature },
  lastResortKyber: { id: row.kyber_id, key: row.kyber_key, signature: row.kyber_signature },
  signature: row.signature,
});

const takeKey = async ({ trx, env }: WriteContext, device: DeviceKeysRow, kind: Kind) => {
  const free = trx
    .selectFrom("one_time_keys")
    .select(["key_id", "key", "signature"])
    .where("user_id", "=", device.user_id)
    .where("device_id", "=", device.device_id)
    .where("kind", "=", kind)
    .where("taken_at", "is", null)
    .orderBy("key_id")
    .limit(1);
  // Whoever asks at the same time gets the next one instead of waiting for this one.
  const next = await forUpdateSkipLocked(trx, free).executeTakeFirst();
  if (next === undefined || next.key === null) return null;
  await trx
    .updateTable("one_time_keys")
    .set({ taken_at: env.clock.now(), key: null, signature: null })
    .where("user_id", "=", device.user_id)
    .where("device_id", "=", device.device_id)
    .where("kind", "=", kind)
    .where("key_id", "=", next.key_id)
    .execute();
  return { ...next, key: next.key };
};

const warnWhenLow = async (context: WriteContext, device: DeviceKeysRow): Promise<void> => {
  const { trx, afterCommit } = context;
  const left = await keysLeft(trx, device.user_id, device.device_id);
  if (left.oneTimeEc >= PREKEY_REFILL_BELOW && left.oneTimeKyber >= PREKEY_REFILL_BELOW) return;
  afterCommit(() => {
    // Checked when the keys were published.
    const userId = device.user_id as UserId;
    pushTo(context, userId, { name: "keysLow", value: left }, device.device_id);
  });
};

/** Ids of taken keys are forgotten when no envelope that used them can be left. Returns how many rows went. */
export const sweepTakenKeys = async (trx: Trx, nowMs: number, rows: number): Promise<number> => {
  const result = await trx
    .deleteFrom("one_time_keys")
    .where((e) =>
      e(
        e.refTuple("user_id", "device_id", "kind", "key_id"),
        "in",
        e
          .selectFrom("one_time_keys")
          .select(["user_id", "device_id", "kind", "key_id"])
          .where("taken_at", "<", nowMs - MAILBOX_TTL_MS)
          .limit(rows)
          .$asTuple("user_id", "device_id", "kind", "key_id"),
      ),
    )
    .executeTakeFirst();
  return Number(result.numDeletedRows);
};
