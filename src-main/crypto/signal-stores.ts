import {
  type Direction,
  IdentityChange,
  type IdentityKeyPair,
  IdentityKeyStore,
  KyberPreKeyRecord,
  KyberPreKeyStore,
  PreKeyRecord,
  PreKeyStore,
  type PrivateKey,
  type ProtocolAddress,
  PublicKey,
  SessionRecord,
  SessionStore,
  SignedPreKeyRecord,
  SignedPreKeyStore,
} from "@signalapp/libsignal-client";
import { BugError } from "#shared/base/assert.ts";
import { type Bytes, bytesEqual } from "#shared/base/bytes.ts";
import type { UserId } from "#shared/base/ids.ts";
import type { KyberUse, SessionChange, SignalReads } from "../store/signal.ts";

/**
 * libsignal's stores for one call about one peer. libsignal awaits its stores and a SQLite transaction cannot span an
 * await, so nothing is written here: reads go to the database, writes are collected in `change` and read back from
 * there, and the caller stores `change` in one transaction when the call has succeeded.
 */
export interface LocalIdentity {
  readonly keyPair: IdentityKeyPair;
  readonly registrationId: number;
}

/**
 * `known`: the peer's stored key only; the first one ever is trusted on first use and becomes part of the change.
 * `any`: a rehearsal that finds out whether a message opens with the key that it carries; its change is thrown away.
 */
export type Trust = "known" | "any";

/** The stores say no: about the message, not a failure of the database. */
export class RefusedError extends Error {
  override readonly name = "RefusedError";
}

/** Null for a row that is no session, as after damage: then there is none, and a new one is made in its place. */
export const readSession = (record: Bytes | null): SessionRecord | null => {
  if (record === null) return null;
  try {
    return SessionRecord.deserialize(record);
  } catch {
    return null;
  }
};

export class SignalCall {
  readonly change: SessionChange = {
    session: null,
    identity: null,
    usedPreKeys: [],
    usedKyberPreKeys: [],
    lastResortUses: [],
  };
  readonly sessionStore: SessionStore;
  readonly identityStore: IdentityKeyStore;
  readonly preKeyStore: PreKeyStore;
  readonly signedPreKeyStore: SignedPreKeyStore;
  readonly kyberPreKeyStore: KyberPreKeyStore;
  /** The identity key that libsignal asked about last. */
  seenIdentity: Bytes | null = null;
  readonly #faults: unknown[] = [];
  readonly #peer: UserId;

  constructor(peer: UserId, reads: SignalReads, local: LocalIdentity, trust: Trust) {
    this.#peer = peer;
    this.sessionStore = new CallSessionStore(this, reads);
    this.identityStore = new CallIdentityStore(this, reads, local, trust);
    this.preKeyStore = new CallPreKeyStore(this, reads);
    this.signedPreKeyStore = new CallSignedPreKeyStore(this, reads);
    this.kyberPreKeyStore = new CallKyberPreKeyStore(this, reads);
  }

  /** @throws what a store threw that has nothing to do with the message: a full disk must not look like a bad message. */
  throwFault(): void {
    if (this.#faults.length > 0) throw this.#faults[0];
  }

  /** Runs the body of a store method. */
  async run<T>(body: () => Promise<T>): Promise<T> {
    try {
      return await body();
    } catch (error) {
      if (!(error instanceof RefusedError)) this.#faults.push(error);
      throw error;
    }
  }

  peerOf(address: ProtocolAddress): UserId {
    if (address.name() !== this.#peer) throw new BugError("libsignal asked about another peer than the call is about");
    return this.#peer;
  }
}

class CallSessionStore extends SessionStore {
  readonly #call: SignalCall;
  readonly #reads: SignalReads;

  constructor(call: SignalCall, reads: SignalReads) {
    super();
    this.#call = call;
    this.#reads = reads;
  }

  saveSession(address: ProtocolAddress, record: SessionRecord): Promise<void> {
    return this.#call.run(async () => {
      this.#call.peerOf(address);
      this.#call.change.session = record.serialize();
    });
  }

  getSession(address: ProtocolAddress): Promise<SessionRecord | null> {
    return this.#call.run(async () => {
      return readSession(this.#call.change.session ?? (await this.#reads.session(this.#call.peerOf(address))));
    });
  }

  async getExistingSessions(addresses: ProtocolAddress[]): Promise<SessionRecord[]> {
    const records: SessionRecord[] = [];
    for (const address of addresses) {
      const record = await this.getSession(address);
      if (record === null) throw new RefusedError("no session");
      records.push(record);
    }
    return records;
  }
}

class CallIdentityStore extends IdentityKeyStore {
  readonly #call: SignalCall;
  readonly #reads: SignalReads;
  readonly #local: LocalIdentity;
  readonly #trust: Trust;

  constructor(call: SignalCall, reads: SignalReads, local: LocalIdentity, trust: Trust) {
    super();
    this.#call = call;
    this.#reads = reads;
    this.#local = local;
    this.#trust = trust;
  }

  async getIdentityKey(): Promise<PrivateKey> {
    return this.#local.keyPair.privateKey;
  }

  override async getIdentityKeyPair(): Promise<IdentityKeyPair> {
    return this.#local.keyPair;
  }

  async getLocalRegistrationId(): Promise<number> {
    return this.#local.registrationId;
  }

  saveIdentity(address: ProtocolAddress, key: PublicKey): Promise<IdentityChange> {
    return this.#call.run(async () => {
      const bytes = key.serialize();
      const known = await this.#known(address);
      if (known === null) this.#call.change.identity = bytes;
      return known === null || bytesEqual(known, bytes)
        ? IdentityChange.NewOrUnchanged
        : IdentityChange.ReplacedExisting;
    });
  }

  isTrustedIdentity(address: ProtocolAddress, key: PublicKey, _direction: Direction): Promise<boolean> {
    return this.#call.run(async () => {
      const bytes = key.serialize();
      this.#call.seenIdentity = bytes;
      if (this.#trust === "any") return true;
      const known = await this.#known(address);
      return known === null || bytesEqual(known, bytes);
    });
  }

  getIdentity(address: ProtocolAddress): Promise<PublicKey | null> {
    return this.#call.run(async () => {
      const known = await this.#known(address);
      return known === null ? null : PublicKey.deserialize(known);
    });
  }

  async #known(address: ProtocolAddress): Promise<Bytes | null> {
    return this.#call.change.identity ?? (await this.#reads.trustedIdentity(this.#call.peerOf(address)));
  }
}

class CallPreKeyStore extends PreKeyStore {
  readonly #call: SignalCall;
  readonly #reads: SignalReads;

  constructor(call: SignalCall, reads: SignalReads) {
    super();
    this.#call = call;
    this.#reads = reads;
  }

  async savePreKey(): Promise<void> {
    throw new BugError("keys are made by the key ring, not by libsignal");
  }

  getPreKey(id: number): Promise<PreKeyRecord> {
    return this.#call.run(async () => {
      const record = this.#call.change.usedPreKeys.includes(id) ? null : await this.#reads.preKey(id);
      if (record === null) throw new RefusedError("one-time key unknown or used");
      return PreKeyRecord.deserialize(record);
    });
  }

  async removePreKey(id: number): Promise<void> {
    this.#call.change.usedPreKeys.push(id);
  }
}

class CallSignedPreKeyStore extends SignedPreKeyStore {
  readonly #call: SignalCall;
  readonly #reads: SignalReads;

  constructor(call: SignalCall, reads: SignalReads) {
    super();
    this.#call = call;
    this.#reads = reads;
  }

  async saveSignedPreKey(): Promise<void> {
    throw new BugError("keys are made by the key ring, not by libsignal");
  }

  getSignedPreKey(id: number): Promise<SignedPreKeyRecord> {
    return this.#call.run(async () => {
      const record = await this.#reads.signedPreKey(id);
      if (record === null) throw new RefusedError("signed key unknown");
      return SignedPreKeyRecord.deserialize(record);
    });
  }
}

class CallKyberPreKeyStore extends KyberPreKeyStore {
  readonly #call: SignalCall;
  readonly #reads: SignalReads;

  constructor(call: SignalCall, reads: SignalReads) {
    super();
    this.#call = call;
    this.#reads = reads;
  }

  async saveKyberPreKey(): Promise<void> {
    throw new BugError("keys are made by the key ring, not by libsignal");
  }

  getKyberPreKey(id: number): Promise<KyberPreKeyRecord> {
    return this.#call.run(async () => {
      const key = this.#call.change.usedKyberPreKeys.includes(id) ? null : await this.#reads.kyberPreKey(id);
      if (key === null) throw new RefusedError("Kyber key unknown or used");
      return KyberPreKeyRecord.deserialize(key.record);
    });
  }

  /** A one-time key goes; a last-resort key stays, so a repeated use must be refused here: libsignal does not. */
  markKyberPreKeyUsed(kyberId: number, signedId: number, baseKey: PublicKey): Promise<void> {
    return this.#call.run(async () => {
      const key = await this.#reads.kyberPreKey(kyberId);
      if (key === null) throw new RefusedError("Kyber key unknown or used");
      if (!key.lastResort) {
        this.#call.change.usedKyberPreKeys.push(kyberId);
        return;
      }
      const use: KyberUse = { kyberId, signedId, baseKey: baseKey.serialize() };
      if (await this.#reads.kyberUseKnown(use)) throw new RefusedError("last-resort key used before with these keys");
      this.#call.change.lastResortUses.push(use);
    });
  }
}
