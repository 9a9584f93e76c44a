import { hkdfSync } from "node:crypto";
import {
  CiphertextMessageType,
  ErrorCode,
  Fingerprint,
  IdentityKeyPair,
  LibSignalErrorBase,
  PreKeySignalMessage,
  ProtocolAddress,
  PublicKey,
  processPreKeyBundle,
  SignalMessage,
  signalDecrypt,
  signalDecryptPreKey,
  signalEncrypt,
} from "@signalapp/libsignal-client";
import { assert, assertNever } from "#shared/base/assert.ts";
import { type Bytes, bytesEqual, utf8 } from "#shared/base/bytes.ts";
import type { Env } from "#shared/base/env.ts";
import type { UserId } from "#shared/base/ids.ts";
import { fail, ok, type Result } from "#shared/base/result.ts";
import type { Sealed } from "#shared/rendezvous/protocol.ts";
import type { Database } from "../store/database.ts";
import { KeyUsedError, type SignalReads, SignalRepository } from "../store/signal.ts";
import { verifyBundle } from "./bundle.ts";
import { createGroupSessions } from "./group-sessions.ts";
import type { Account } from "./identity.ts";
import { createKeyedQueue, type KeyedQueue } from "./keyed-queue.ts";
import { createKeyRing } from "./prekeys.ts";
import type { SessionError, Sessions } from "./sessions.ts";
import { type LocalIdentity, RefusedError, readSession, SignalCall, type Trust } from "./signal-stores.ts";

export interface SessionsDeps {
  readonly db: Database;
  readonly env: Env;
  readonly account: Account;
  readonly deviceId: 1;
  /** What keeps two operations of one address apart; a test replaces it to show what happens without. */
  readonly queue?: KeyedQueue;
  /** Wraps the reads, so that a simulator can delay them. */
  readonly wrapReads?: (reads: SignalReads) => SignalReads;
}

/** libsignal's iterations and version for safety numbers (Signal's own values). */
const FINGERPRINT_ITERATIONS = 5200;
const FINGERPRINT_VERSION = 2;
const REGISTRATION_ID_MAX = 0x3fff;
/** HKDF (RFC 5869) keeps this use of the agreed key apart from those inside libsignal. */
const PAIRWISE_CONTEXT = "weir pairwise secret 1";
const PAIRWISE_SECRET_BYTES = 32;

const identityChanged = () =>
  fail(
    "identity_changed",
    "The safety number of this contact has changed. Compare it with them and accept it before you go on.",
  );
const noSession = () => fail("no_session", "There is no session with this contact yet.");
const undecryptable = () => fail("undecryptable", "A message of this contact could not be decrypted.");

/** Signal sessions over libsignal; the only entrance to it. See the interface for the guarantees. */
export const createSessions = async (deps: SessionsDeps): Promise<Sessions> => {
  const { db, env, account, deviceId } = deps;
  const repository = new SignalRepository(db, deviceId);
  const local = loadOrCreateLocal(db, repository, env);
  const reads = deps.wrapReads?.(repository) ?? repository;
  const queue = deps.queue ?? createKeyedQueue();
  const keyRing = createKeyRing({ db, repository, env, account, deviceId, local });
  const localAddress = ProtocolAddress.new(account.userId, deviceId);
  const addressOf = (peer: UserId): ProtocolAddress => ProtocolAddress.new(peer, deviceId);
  const now = (): Date => new Date(env.clock.now());

  const inTurn = async <T>(
    peer: UserId,
    task: () => Promise<Result<T, SessionError>>,
  ): Promise<Result<T, SessionError>> => {
    const result = await queue.run(peer, task);
    return result.ok ? result.value : result;
  };

  /** Stores what the call changed together with what `commit` writes; `commit`'s throw undoes both and goes on. */
  const store = <T>(peer: UserId, call: SignalCall, commit: () => T): Result<T, SessionError> => {
    try {
      return ok(
        db.transaction(() => {
          repository.apply(peer, call.change);
          return commit();
        }),
      );
    } catch (error) {
      // Two peers' first messages with the same one-time key: only one of them can have it.
      if (error instanceof KeyUsedError) return undecryptable();
      throw error;
    }
  };

  const canSeal = (record: Bytes | null): boolean => readSession(record)?.hasCurrentState(now()) ?? false;

  const changedIdentityOf = (peer: UserId): Bytes | null => repository.identity(peer)?.changedTo ?? null;

  const noteChangedIdentity = (peer: UserId, key: Bytes): Result<never, SessionError> => {
    db.transaction(() => repository.setChangedIdentity(peer, key));
    env.log.warn("identity key of a peer changed");
    return identityChanged();
  };

  const start: Sessions["start"] = (peer, bundle, expectedIdentityKey, existing = "keep") => {
    assert(peer !== account.userId, "a session with oneself");
    const verified = verifyBundle(peer, deviceId, bundle, expectedIdentityKey);
    if (!verified.ok) return Promise.resolve(verified);
    return inTurn(peer, async () => {
      const identity = repository.identity(peer);
      if (identity !== null && !bytesEqual(identity.trusted, verified.value.identityKey))
        return noteChangedIdentity(peer, verified.value.identityKey);
      if (identity?.changedTo) return identityChanged();
      if (existing === "keep" && canSeal(await reads.session(peer))) return ok(undefined);
      const call = new SignalCall(peer, reads, local, "known");
      const { sessionStore, identityStore } = call;
      try {
        await processPreKeyBundle(
          verified.value.bundle,
          addressOf(peer),
          localAddress,
          sessionStore,
          identityStore,
          now(),
        );
      } catch (error) {
        call.throwFault();
        if (!(error instanceof LibSignalErrorBase)) throw error;
        return fail("bad_bundle", "The keys that the server gave for this contact are not valid. Nothing was sent.");
      }
      return store(peer, call, () => undefined);
    });
  };

  const seal: Sessions["seal"] = (peer, plaintext, commit) =>
    inTurn(peer, async () => {
      if (changedIdentityOf(peer) !== null) return identityChanged();
      if (!canSeal(await reads.session(peer))) return noSession();
      const call = new SignalCall(peer, reads, local, "known");
      const message = await signalEncrypt(
        new Uint8Array(plaintext),
        addressOf(peer),
        localAddress,
        call.sessionStore,
        call.identityStore,
        now(),
      );
      const kind = message.type() === CiphertextMessageType.PreKey ? "prekey" : "message";
      return store(peer, call, () => commit({ kind, body: message.serialize() }));
    });

  const decrypt = (peer: UserId, message: Ciphertext, call: SignalCall): Promise<Bytes> => {
    const { sessionStore, identityStore, preKeyStore, signedPreKeyStore, kyberPreKeyStore } = call;
    const address = addressOf(peer);
    if (message instanceof SignalMessage)
      return signalDecrypt(message, address, localAddress, sessionStore, identityStore);
    return signalDecryptPreKey(
      message,
      address,
      localAddress,
      sessionStore,
      identityStore,
      preKeyStore,
      signedPreKeyStore,
      kyberPreKeyStore,
    );
  };

  const attempt = async (
    peer: UserId,
    message: Ciphertext,
    trust: Trust,
  ): Promise<{ call: SignalCall; outcome: Outcome }> => {
    const call = new SignalCall(peer, reads, local, trust);
    try {
      return { call, outcome: { kind: "opened", plaintext: await decrypt(peer, message, call) } };
    } catch (error) {
      call.throwFault();
      return { call, outcome: { kind: failureOf(error) } };
    }
  };

  /**
   * A message with another identity key than the trusted one. It is opened once for trial, and the change is only
   * believed when that succeeds: an old or invented message must not be able to block the contact.
   */
  const rehearse = async (peer: UserId, message: Ciphertext): Promise<Result<never, SessionError>> => {
    const { call, outcome } = await attempt(peer, message, "any");
    if (outcome.kind !== "opened" || call.seenIdentity === null) return undecryptable();
    return noteChangedIdentity(peer, call.seenIdentity);
  };

  const open: Sessions["open"] = (peer, sealed, commit) =>
    inTurn(peer, async () => {
      const message = parse(sealed);
      if (message === null) return undecryptable();
      if (message instanceof SignalMessage && readSession(await reads.session(peer)) === null) return noSession();
      const { call, outcome } = await attempt(peer, message, "known");
      switch (outcome.kind) {
        case "opened":
          return store(peer, call, () => commit(outcome.plaintext));
        case "untrusted":
          return rehearse(peer, message);
        case "duplicate":
          return fail("duplicate_message", "This message was received before.");
        case "undecryptable":
          return undecryptable();
        default:
          return assertNever(outcome);
      }
    });

  const fingerprintWith = (peer: UserId): Fingerprint | null => {
    const identity = repository.identity(peer);
    if (identity === null) return null;
    return Fingerprint.new(
      FINGERPRINT_ITERATIONS,
      FINGERPRINT_VERSION,
      utf8(account.userId),
      local.keyPair.publicKey,
      utf8(peer),
      PublicKey.deserialize(identity.changedTo ?? identity.trusted),
    );
  };

  return {
    ...createGroupSessions({ db, self: account.userId, queue, addressOf }),
    localIdentityKey: local.keyPair.publicKey.serialize(),
    hasSession: (peer) => canSeal(repository.session(peer)),
    start,
    seal,
    open,
    identity(peer) {
      const identity = repository.identity(peer);
      return identity ?? { trusted: null, changedTo: null };
    },
    acceptChangedIdentity: (peer) =>
      inTurn(peer, async () => {
        repository.acceptChangedIdentity(peer);
        return ok(undefined);
      }),
    safetyNumber: (peer) => fingerprintWith(peer)?.displayableFingerprint().toString() ?? null,
    safetyCode: (peer) => fingerprintWith(peer)?.scannableFingerprint().toBuffer() ?? null,
    pairwiseSecret(peer) {
      const identity = repository.identity(peer);
      if (identity === null || identity.changedTo !== null) return null;
      const agreed = local.keyPair.privateKey.agree(PublicKey.deserialize(identity.trusted));
      return new Uint8Array(hkdfSync("sha256", agreed, new Uint8Array(0), PAIRWISE_CONTEXT, PAIRWISE_SECRET_BYTES));
    },
    forget: (peer) => queue.force(peer, async () => repository.forget(peer)),
    keysToPublish: keyRing.keysToPublish,
    published: keyRing.published,
  };
};

type Ciphertext = SignalMessage | PreKeySignalMessage;

/** Null for bytes that are no message of this kind. */
const parse = (sealed: Sealed): Ciphertext | null => {
  try {
    return sealed.kind === "prekey"
      ? PreKeySignalMessage.deserialize(sealed.body)
      : SignalMessage.deserialize(sealed.body);
  } catch {
    return null;
  }
};

type Failure = "untrusted" | "duplicate" | "undecryptable";
type Outcome =
  | { readonly kind: "opened"; readonly plaintext: Bytes }
  | { readonly kind: "untrusted" }
  | { readonly kind: "duplicate" }
  | { readonly kind: "undecryptable" };

/** libsignal says "no such session", "bad MAC" and "unknown prekey" all with `Generic`. @throws what it did not throw. */
const failureOf = (thrown: unknown): Failure => {
  if (thrown instanceof RefusedError) return "undecryptable";
  if (!(thrown instanceof LibSignalErrorBase)) throw thrown;
  if (thrown.code === ErrorCode.UntrustedIdentity) return "untrusted";
  if (thrown.code === ErrorCode.DuplicatedMessage) return "duplicate";
  return "undecryptable";
};

/** The device's own identity key pair and registration id, made once. */
const loadOrCreateLocal = (db: Database, repository: SignalRepository, env: Env): LocalIdentity =>
  db.transaction(() => {
    const stored = repository.local();
    if (stored !== null)
      return {
        keyPair: IdentityKeyPair.deserialize(stored.identityKeyPair),
        registrationId: stored.registrationId,
      };
    const keyPair = IdentityKeyPair.generate();
    const registrationId = 1 + Math.floor(env.random.number() * REGISTRATION_ID_MAX);
    repository.insertLocal(keyPair.serialize(), registrationId);
    return { keyPair, registrationId };
  });
