import type { ColumnType, Generated, Insertable, Kysely, Selectable, Transaction } from "kysely";

/**
 * Tables of the rendezvous server. They hold ids, sizes, times, public keys and ciphertext: nothing that a person wrote,
 * no names, no file keys. Times are milliseconds since the Unix epoch. Booleans are 0 or 1.
 */
type Blob = ColumnType<Buffer<ArrayBuffer>, Uint8Array, Uint8Array>;
type NullableBlob = ColumnType<Buffer<ArrayBuffer> | null, Uint8Array | null, Uint8Array | null>;

interface ServerTable {
  id: string;
  created_at: number;
}

interface AccountsTable {
  user_id: string;
  account_key: Blob;
  created_at: number;
  /** What lies in the mailbox, kept beside every change so that a quota check reads one row. */
  mailbox_envelopes: Generated<number>;
  mailbox_bytes: Generated<number>;
}

interface DeviceKeysTable {
  user_id: string;
  device_id: number;
  registration_id: number;
  identity_key: Blob;
  signed_id: number;
  signed_key: Blob;
  signed_signature: Blob;
  kyber_id: number;
  kyber_key: Blob;
  kyber_signature: Blob;
  /** By the account key over all of the above. */
  signature: Blob;
  published_at: number;
}

interface OneTimeKeysTable {
  user_id: string;
  device_id: number;
  kind: "ec" | "kyber";
  key_id: number;
  /** Null once taken: the row stays for a while, so that the same id is never offered twice. */
  key: NullableBlob;
  signature: NullableBlob;
  taken_at: number | null;
}

interface MailboxTable {
  /** Grows with every put: the order of delivery. */
  seq: Generated<number>;
  recipient: string;
  id: string;
  sender: string;
  kind: "prekey" | "message";
  body: Blob;
  size: number;
  received_at: number;
}

/** Envelopes that were acknowledged: a late repeat of the put must not bring them back. */
interface MailboxDoneTable {
  recipient: string;
  id: string;
  sender: string;
  done_at: number;
}

/** Answers to requests that changed something, by idempotency key. */
interface AnswersTable {
  user_id: string;
  device_id: number;
  key: string;
  name: string;
  input_hash: Blob;
  answer: Blob;
  answered_at: number;
}

interface InvitesTable {
  code: string;
  user_id: string;
  invite_id: Blob;
  commitment: Blob;
  expires_at: number;
}

interface FilesTable {
  file_id: string;
  owner_id: string;
  size_bytes: number;
  chunk_bytes: number;
  chunk_count: number;
  root: Blob;
  created_at: number;
  signature: Blob;
  version: number;
  registered_at: number;
}

interface FileMembersTable {
  file_id: string;
  user_id: string;
}

/** The signed operations of each share list (src-shared/shares), in order. */
interface ShareOperationsTable {
  file_id: string;
  version: number;
  hash: Blob;
  operation: Blob;
}

/** The end of each share list, computed from its operations. A file from before there were lists has none. */
interface ShareListsTable {
  file_id: string;
  list: Blob;
}

/** Who had access and has not any more: they may read the list up to that version, to see that it is true. */
interface ShareLeaversTable {
  file_id: string;
  user_id: string;
  version: number;
}

/** Signed statements of what became of a file (src-shared/shares/receipt), numbered from 1 without gaps. */
interface ShareReceiptsTable {
  file_id: string;
  number: number;
  kind: "offered" | "completed";
  subject: string;
  receipt: Blob;
}

interface SeedersTable {
  file_id: string;
  user_id: string;
  complete: number;
  chunks_held: number;
  announced_at: number;
}

/** Sealed values under opaque keys; who put one is known for the quota alone. */
interface DirectoryTable {
  key: Blob;
  user_id: string;
  device_id: number;
  value: Blob;
  expires_at: number;
}

/** Relayed bytes of one account on one day (UTC). */
interface RelayUsageTable {
  user_id: string;
  /** Milliseconds since the Unix epoch of its first moment. */
  day: number;
  bytes: number;
}

export interface Schema {
  server: ServerTable;
  accounts: AccountsTable;
  device_keys: DeviceKeysTable;
  one_time_keys: OneTimeKeysTable;
  mailbox: MailboxTable;
  mailbox_done: MailboxDoneTable;
  answers: AnswersTable;
  invites: InvitesTable;
  files: FilesTable;
  file_members: FileMembersTable;
  share_operations: ShareOperationsTable;
  share_lists: ShareListsTable;
  share_leavers: ShareLeaversTable;
  share_receipts: ShareReceiptsTable;
  seeders: SeedersTable;
  directory: DirectoryTable;
  relay_usage: RelayUsageTable;
}

export type Db = Kysely<Schema>;
/** Inside a transaction only this is used: the outer `Db` would wait for ever for the one connection. */
export type Trx = Transaction<Schema>;
export type DeviceKeysRow = Selectable<DeviceKeysTable>;
export type NewOneTimeKey = Insertable<OneTimeKeysTable>;
