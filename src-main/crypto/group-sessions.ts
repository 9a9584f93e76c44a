import {
  ErrorCode,
  groupDecrypt,
  groupEncrypt,
  LibSignalErrorBase,
  type ProtocolAddress,
  processSenderKeyDistributionMessage,
  SenderKeyDistributionMessage,
  SenderKeyMessage,
  SenderKeyRecord,
  SenderKeyStore,
} from "@signalapp/libsignal-client";
import { type Bytes, toHex } from "#shared/base/bytes.ts";
import type { UserId } from "#shared/base/ids.ts";
import { fail, ok, type Result } from "#shared/base/result.ts";
import type { Database } from "../store/database.ts";
import { SenderKeysTable } from "../store/sender-keys.ts";
import type { KeyedQueue } from "./keyed-queue.ts";
import type { GroupOpenError, GroupSessions } from "./sessions.ts";

interface GroupSessionsDeps {
  readonly db: Database;
  readonly self: UserId;
  readonly queue: KeyedQueue;
  readonly addressOf: (userId: UserId) => ProtocolAddress;
}

const undecryptable = () => fail("undecryptable", "A message to the group could not be decrypted.");
const unknownKey = () => fail("unknown_key", "The key of this member for the group is not here.");

/** libsignal's store for one call: reads go to the table, writes are collected (see signal-stores.ts for why). */
class CallStore extends SenderKeyStore {
  readonly written = new Map<string, Bytes>();
  readonly #sender: UserId;
  readonly #table: SenderKeysTable;

  constructor(sender: UserId, table: SenderKeysTable) {
    super();
    this.#sender = sender;
    this.#table = table;
  }

  async saveSenderKey(_sender: ProtocolAddress, distributionId: string, record: SenderKeyRecord): Promise<void> {
    this.written.set(distributionId, record.serialize());
  }

  async getSenderKey(_sender: ProtocolAddress, distributionId: string): Promise<SenderKeyRecord | null> {
    const record = this.written.get(distributionId) ?? this.#table.get(this.#sender, distributionId);
    return record === null ? null : SenderKeyRecord.deserialize(record);
  }
}

/** Sender keys over libsignal. libsignal does not lock: two that seal at once would use the same step of the chain. */
export const createGroupSessions = ({ db, self, queue, addressOf }: GroupSessionsDeps): GroupSessions => {
  const table = new SenderKeysTable(db);

  const inTurn = async <T>(
    sender: UserId,
    task: () => Promise<Result<T, GroupOpenError>>,
  ): Promise<Result<T, GroupOpenError>> => {
    const result = await queue.run(`group ${sender}`, task);
    return result.ok ? result.value : result;
  };

  const store = <T>(sender: UserId, groupId: string | null, call: CallStore, commit: () => T): Result<T, never> =>
    ok(
      db.transaction(() => {
        for (const [distributionId, record] of call.written)
          if (groupId === null) table.update(sender, distributionId, record);
          else table.put(groupId, sender, distributionId, record);
        return commit();
      }),
    );

  return {
    groupSeal: (groupId, distributionId, plaintext, commit) =>
      inTurn(self, async () => {
        const call = new CallStore(self, table);
        const address = addressOf(self);
        // Before the message: whoever is given the key now can read this message too.
        const key = await SenderKeyDistributionMessage.create(address, distributionId, call);
        const message = await groupEncrypt(address, distributionId, call, new Uint8Array(plaintext));
        // groupEncrypt gives the bytes of the SenderKeyMessage that groupDecrypt takes.
        const sealed = { body: message.serialize(), distribution: key.serialize() };
        return store(self, groupId, call, () => commit(sealed));
      }),

    groupTake: (groupId, sender, distribution, commit) =>
      inTurn(sender, async () => {
        const call = new CallStore(sender, table);
        try {
          const key = SenderKeyDistributionMessage.deserialize(new Uint8Array(distribution));
          // One that belongs to another group of the same sender stays there.
          if (
            table.groupOf(sender, key.distributionId()) !== null &&
            table.groupOf(sender, key.distributionId()) !== groupId
          )
            return undecryptable();
          await processSenderKeyDistributionMessage(addressOf(sender), key, call);
        } catch (error) {
          if (!(error instanceof LibSignalErrorBase)) throw error;
          return undecryptable();
        }
        return store(sender, groupId, call, commit);
      }),

    groupOpen: (sender, body, commit) =>
      inTurn(sender, async () => {
        const call = new CallStore(sender, table);
        let plaintext: Bytes;
        try {
          const message = SenderKeyMessage.deserialize(new Uint8Array(body));
          // libsignal says nothing but "Generic" when there is none.
          if (table.get(sender, message.distributionId()) === null) return unknownKey();
          plaintext = await groupDecrypt(addressOf(sender), call, new Uint8Array(body));
        } catch (error) {
          if (!(error instanceof LibSignalErrorBase)) throw error;
          return error.code === ErrorCode.DuplicatedMessage
            ? fail("duplicate_message", "This message was received before.")
            : undecryptable();
        }
        return store(sender, null, call, () => commit(plaintext));
      }),
  };
};

/** Sixteen random bytes as the UUID (RFC 9562, version 4) that libsignal wants for a distribution id. */
export const distributionIdOf = (random: Uint8Array): string => {
  const bytes = random.slice(0, 16);
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x40;
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
  const text = toHex(bytes);
  return [text.slice(0, 8), text.slice(8, 12), text.slice(12, 16), text.slice(16, 20), text.slice(20)].join("-");
};
