import { hash } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { toDisposable } from "#shared/base/disposable.ts";
import type { Env, TimeMs } from "#shared/base/env.ts";
import type { UserId } from "#shared/base/ids.ts";
import { PREKEY_BATCH } from "#shared/base/limits.ts";
import type { Result } from "#shared/base/result.ts";
import type { PreKeyBundle, RequestInput, Sealed } from "#shared/rendezvous/protocol.ts";
import { type Account, loadOrCreateAccount } from "../../src-main/crypto/identity.ts";
import type { Sessions } from "../../src-main/crypto/sessions.ts";
import { createSessions, type SessionsDeps } from "../../src-main/crypto/signal-sessions.ts";
import { systemRandom } from "../../src-main/env.ts";
import { AccountTable } from "../../src-main/store/account.ts";
import { Database } from "../../src-main/store/database.ts";
import { appMigrations } from "../../src-main/store/schema/app.ts";

/** One-time keys that a test peer makes at a time: enough for a test, and quick. */
export const ONE_TIME_KEYS = 5;

const silent = (): void => undefined;

/** Real randomness, a clock that the test moves, no log. */
export const testEnv = (startMs: TimeMs = Date.UTC(2026, 0, 1)): { env: Env; advance(ms: number): void } => {
  let nowMs = startMs;
  const log = { debug: silent, info: silent, warn: silent, error: silent, child: () => log };
  return {
    env: {
      clock: { now: () => nowMs, monotonicMs: () => nowMs, setTimer: () => toDisposable(silent) },
      random: systemRandom,
      log,
    },
    advance: (ms) => {
      nowMs += ms;
    },
  };
};

/** A profile with real sessions in a real database, that can be closed and opened again. */
export interface SessionPeer {
  readonly userId: UserId;
  readonly account: Account;
  db: Database;
  sessions: Sessions;
  advance(ms: number): void;
  /** As after a restart: nothing that was only in memory is left. */
  reopen(): Promise<void>;
  /** What the server would give: the newest one-time keys that it has not given yet. */
  bundle(): Promise<PreKeyBundle>;
  /** A bundle of a server that has run out of one-time keys. */
  bundleWithoutOneTimeKeys(): Promise<PreKeyBundle>;
  dispose(): void;
}

interface SessionPeerOptions extends Pick<SessionsDeps, "queue" | "wrapReads"> {
  /** A reinstallation: the same account with a new identity key. */
  readonly sameAccountAs?: SessionPeer;
  /** Without fsync, for tests with very many messages that are not about durability. */
  readonly fast?: boolean;
}

export const createSessionPeer = async (options: SessionPeerOptions = {}): Promise<SessionPeer> => {
  const { sameAccountAs, fast = false, ...seams } = options;
  const directory = mkdtempSync(join(tmpdir(), "weir-sessions-"));
  const path = join(directory, "app.db");
  const key = systemRandom.bytes(32);
  const { env, advance } = testEnv();
  const openDatabase = (): Database => {
    const database = Database.openApp(path, key, appMigrations);
    if (fast) database.sql.pragma("synchronous = OFF");
    return database;
  };
  const db = openDatabase();
  const seed = sameAccountAs === undefined ? null : new AccountTable(sameAccountAs.db).seed();
  if (seed !== null) new AccountTable(db).insert(seed, env.clock.now());
  const account = loadOrCreateAccount(db, env);
  const openSessions = (database: Database): Promise<Sessions> =>
    createSessions({ db: database, env, account: loadOrCreateAccount(database, env), deviceId: 1, ...seams });
  const oneTime: {
    ec: RequestInput<"keys.publish">["oneTimeEc"];
    kyber: RequestInput<"keys.publish">["oneTimeKyber"];
  } = { ec: [], kyber: [] };

  const publish = async (full: boolean): Promise<RequestInput<"keys.publish">> => {
    const atServer = full ? PREKEY_BATCH - ONE_TIME_KEYS : PREKEY_BATCH;
    const keys = await peer.sessions.keysToPublish({ oneTimeEc: atServer, oneTimeKyber: atServer });
    oneTime.ec.push(...keys.oneTimeEc);
    oneTime.kyber.push(...keys.oneTimeKyber);
    peer.sessions.published(keys);
    return keys;
  };
  const bundleOf = (keys: RequestInput<"keys.publish">): PreKeyBundle => ({
    userId: account.userId,
    deviceId: 1,
    accountKey: account.accountKey,
    keys: clone(keys.keys),
    oneTimeEc: null,
    oneTimeKyber: null,
  });

  const peer: SessionPeer = {
    userId: account.userId,
    account,
    db,
    sessions: await openSessions(db),
    advance,
    async reopen() {
      peer.db.dispose();
      peer.db = openDatabase();
      peer.sessions = await openSessions(peer.db);
    },
    async bundle() {
      const keys = await publish(oneTime.ec.length === 0);
      return {
        ...bundleOf(keys),
        oneTimeEc: clone(oneTime.ec.pop() ?? null),
        oneTimeKyber: clone(oneTime.kyber.pop() ?? null),
      };
    },
    bundleWithoutOneTimeKeys: async () => bundleOf(await publish(false)),
    dispose() {
      peer.db.dispose();
      rmSync(directory, { recursive: true, force: true });
    },
  };
  return peer;
};

const clone = <T>(value: T): T => structuredClone(value);

export const unwrap = <T>(result: Result<T>): T => {
  if (!result.ok) throw new Error(`${result.error.type}: ${result.error.message}`);
  return result.value;
};

/** `"ok"` or the type of the error. */
export const typeOf = (result: Result<unknown>): string => (result.ok ? "ok" : result.error.type);

export const text = (value: string): Uint8Array<ArrayBuffer> => new TextEncoder().encode(value);

export const sealText = async (from: SessionPeer, to: SessionPeer, value: string): Promise<Sealed> =>
  unwrap(await from.sessions.seal(to.userId, text(value), (sealed) => sealed));

export const openText = async (to: SessionPeer, from: SessionPeer, sealed: Sealed): Promise<Result<string>> =>
  to.sessions.open(from.userId, sealed, (plaintext) => new TextDecoder().decode(plaintext));

/** Alice has a session with Bob, and Bob has answered once, so that prekey messages are over. */
export const connect = async (alice: SessionPeer, bob: SessionPeer): Promise<void> => {
  unwrap(await alice.sessions.start(bob.userId, await bob.bundle()));
  unwrap(await openText(bob, alice, await sealText(alice, bob, "hello")));
  unwrap(await openText(alice, bob, await sealText(bob, alice, "hello yourself")));
};

const STORED_TABLES = [
  "signal_sessions",
  "signal_identities",
  "signal_prekeys",
  "signal_signed_prekeys",
  "signal_kyber_prekeys",
  "signal_kyber_uses",
];

/** Everything that the session operations store, one line per row, to compare before and after. */
export const storedState = (peer: SessionPeer): string[] =>
  STORED_TABLES.flatMap((table) => {
    const rows = peer.db.sql.prepare<[], object>(`SELECT * FROM ${table} ORDER BY 1, 2`).all();
    return rows.map((row) => {
      const values = Object.values(row).map((value) =>
        Buffer.isBuffer(value) ? hash("sha256", value) : String(value),
      );
      return `${table} ${values.join(" ")}`;
    });
  });

/** Ratchet key and counter of a message (`SignalMessage` of Signal's wire format: fields 1 and 2): never twice the same. */
export const counterOf = (sealed: Sealed): string => {
  const [version, keyTag, keyLength] = sealed.body;
  if (
    sealed.kind !== "message" ||
    version === undefined ||
    keyTag !== 0x0a ||
    keyLength !== 33 ||
    sealed.body[36] !== 0x10
  )
    throw new Error("not the layout of a SignalMessage");
  let end = 37;
  while ((sealed.body[end] ?? 0) & 0x80) end++;
  return Buffer.from(sealed.body.subarray(3, end + 1)).toString("hex");
};
