import { setImmediate as nextTurn } from "node:timers/promises";
import {
  KEMKeyPair,
  KyberPreKeyRecord,
  PreKeyRecord,
  PrivateKey,
  SignedPreKeyRecord,
} from "@signalapp/libsignal-client";
import type { Env } from "#shared/base/env.ts";
import { MAILBOX_TTL_MS, PREKEY_ARCHIVE_MS, PREKEY_BATCH, SIGNED_PREKEY_ROTATE_MS } from "#shared/base/limits.ts";
import { type DeviceKeys, deviceKeysSigningBytes, type RequestInput } from "#shared/rendezvous/protocol.ts";
import type { Database } from "../store/database.ts";
import type { CurrentKey, KeyKind, SignalRepository, StoredKey } from "../store/signal.ts";
import type { Account } from "./identity.ts";
import type { LocalIdentity } from "./signal-stores.ts";

type Publication = RequestInput<"keys.publish">;

/**
 * Makes, rotates and prunes this device's prekeys. A private key is stored before its public half is handed out, and no
 * id is given to two keys, so a lost answer of the server costs a few unused keys and never a message.
 *
 * The signed EC key and the last-resort Kyber key are replaced together every SIGNED_PREKEY_ROTATE_MS. A replaced one is
 * kept while a message made with it can still be in a mailbox (MAILBOX_TTL_MS), and in any case the newest
 * SIGNED_PREKEYS_KEPT. Unused one-time keys are kept as the limits PREKEY_ARCHIVE_MS and PREKEYS_UNUSED_MAX say.
 */
interface KeyRing {
  keysToPublish(atServer: { oneTimeEc: number; oneTimeKyber: number }): Promise<Publication>;
  published(keys: Publication): void;
}

interface KeyRingDeps {
  readonly db: Database;
  readonly repository: SignalRepository;
  readonly env: Env;
  readonly account: Account;
  readonly deviceId: number;
  readonly local: LocalIdentity;
}

/** Keys made before other work gets its turn: about 2 ms of a main thread that also serves the window and the links. */
const KEYS_PER_TURN = 20;
const KEY_ID_MAX = 0xffffff;

export const createKeyRing = ({ db, repository, env, account, deviceId, local }: KeyRingDeps): KeyRing => {
  const takeIds = (kind: KeyKind, count: number): number[] =>
    repository.takeKeyIds(kind, count, () => 1 + Math.floor(env.random.number() * KEY_ID_MAX));

  const takeId = (kind: KeyKind): number => {
    const [id] = takeIds(kind, 1);
    if (id === undefined) throw new Error("no key id");
    return id;
  };

  const newKyber = (id: number): StoredKey => {
    const pair = KEMKeyPair.generate();
    const signature = local.keyPair.privateKey.sign(pair.getPublicKey().serialize());
    return { id, record: KyberPreKeyRecord.new(id, env.clock.now(), pair, signature).serialize() };
  };

  const newSigned = (id: number): StoredKey => {
    const key = PrivateKey.generate();
    const signature = local.keyPair.privateKey.sign(key.getPublicKey().serialize());
    const record = SignedPreKeyRecord.new(id, env.clock.now(), key.getPublicKey(), key, signature);
    return { id, record: record.serialize() };
  };

  const newEc = (id: number): StoredKey => {
    const key = PrivateKey.generate();
    return { id, record: PreKeyRecord.new(id, key.getPublicKey(), key).serialize() };
  };

  /** A clock that was set back must not stop rotation, hence the absolute value. */
  const isDue = (key: CurrentKey | null): boolean =>
    key === null || Math.abs(env.clock.now() - key.createdAtMs) >= SIGNED_PREKEY_ROTATE_MS;

  const rotateWhenDue = (): void => {
    if (!isDue(repository.currentSignedPreKey()) && !isDue(repository.currentLastResort())) return;
    db.transaction(() => {
      repository.rotate(newSigned(takeId("signed")), newKyber(takeId("kyber")), env.clock.now());
    });
  };

  const makeKeys = async (ids: readonly number[], make: (id: number) => StoredKey): Promise<StoredKey[]> => {
    const keys: StoredKey[] = [];
    for (const id of ids) {
      keys.push(make(id));
      if (keys.length % KEYS_PER_TURN === 0) await nextTurn();
    }
    return keys;
  };

  const deviceKeys = (): DeviceKeys => {
    const signed = repository.currentSignedPreKey();
    const lastResort = repository.currentLastResort();
    if (signed === null || lastResort === null) throw new Error("the long-lived keys are missing");
    const keys: Omit<DeviceKeys, "signature"> = {
      registrationId: local.registrationId,
      identityKey: local.keyPair.publicKey.serialize(),
      signedPreKey: signedPublic(signed),
      lastResortKyber: kyberPublic(lastResort),
    };
    return { ...keys, signature: account.sign(deviceKeysSigningBytes(keys, account.userId, deviceId)) };
  };

  const fillUp = async (atServer: { oneTimeEc: number; oneTimeKyber: number }): Promise<Publication> => {
    const nowMs = env.clock.now();
    rotateWhenDue();
    repository.prune(nowMs - MAILBOX_TTL_MS, nowMs - PREKEY_ARCHIVE_MS);
    const ec = await makeKeys(takeIds("ec", missing(atServer.oneTimeEc)), newEc);
    const kyber = await makeKeys(takeIds("kyber", missing(atServer.oneTimeKyber)), newKyber);
    repository.insertOneTimeKeys(ec, kyber, nowMs);
    return { keys: deviceKeys(), oneTimeEc: ec.map(ecPublic), oneTimeKyber: kyber.map(kyberPublic) };
  };

  return {
    keysToPublish: fillUp,
    published: (keys) =>
      repository.confirm(
        keys.oneTimeEc.map((key) => key.id),
        keys.oneTimeKyber.map((key) => key.id),
      ),
  };
};

/** The server is not trusted: whatever number it says, one batch at most. */
const missing = (atServer: number): number => Math.min(PREKEY_BATCH, Math.max(0, PREKEY_BATCH - atServer));

const ecPublic = ({ id, record }: StoredKey) => ({
  id,
  key: PreKeyRecord.deserialize(record).publicKey().serialize(),
});

const signedPublic = ({ id, record }: StoredKey) => {
  const key = SignedPreKeyRecord.deserialize(record);
  return { id, key: key.publicKey().serialize(), signature: key.signature() };
};

const kyberPublic = ({ id, record }: StoredKey) => {
  const key = KyberPreKeyRecord.deserialize(record);
  return { id, key: key.publicKey().serialize(), signature: key.signature() };
};
