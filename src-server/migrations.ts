import { type Kysely, sql } from "kysely";
import type { Migration, MigrationProvider } from "kysely/migration";

/** Names are what a database remembers: never renamed, only added to. A migration sees no current types on purpose. */
const start: Migration = {
  async up(db: Kysely<unknown>): Promise<void> {
    const { schema } = db;
    await schema
      .createTable("server")
      .addColumn("id", "text", (c) => c.primaryKey())
      .addColumn("created_at", "integer", (c) => c.notNull())
      .execute();
    await schema
      .createTable("accounts")
      .addColumn("user_id", "text", (c) => c.primaryKey())
      .addColumn("account_key", "blob", (c) => c.notNull())
      .addColumn("created_at", "integer", (c) => c.notNull())
      .addColumn("mailbox_envelopes", "integer", (c) => c.notNull().defaultTo(0))
      .addColumn("mailbox_bytes", "integer", (c) => c.notNull().defaultTo(0))
      .execute();
    await createKeys(db);
    await createMailbox(db);
    await schema
      .createTable("answers")
      .addColumn("user_id", "text", (c) => c.notNull())
      .addColumn("device_id", "integer", (c) => c.notNull())
      .addColumn("key", "text", (c) => c.notNull())
      .addColumn("name", "text", (c) => c.notNull())
      .addColumn("input_hash", "blob", (c) => c.notNull())
      .addColumn("answer", "blob", (c) => c.notNull())
      .addColumn("answered_at", "integer", (c) => c.notNull())
      .addPrimaryKeyConstraint("answers_key", ["user_id", "device_id", "key"])
      .execute();
    await schema.createIndex("answers_by_time").on("answers").column("answered_at").execute();
    await schema
      .createTable("invites")
      .addColumn("code", "text", (c) => c.primaryKey())
      .addColumn("user_id", "text", (c) => c.notNull())
      .addColumn("invite_id", "blob", (c) => c.notNull())
      .addColumn("commitment", "blob", (c) => c.notNull())
      .addColumn("expires_at", "integer", (c) => c.notNull())
      .addUniqueConstraint("invites_once", ["user_id", "invite_id"])
      .execute();
    await schema.createIndex("invites_by_time").on("invites").column("expires_at").execute();
    await createFiles(db);
  },
};

const createKeys = async ({ schema }: Kysely<unknown>): Promise<void> => {
  await schema
    .createTable("device_keys")
    .addColumn("user_id", "text", (c) => c.notNull())
    .addColumn("device_id", "integer", (c) => c.notNull())
    .addColumn("registration_id", "integer", (c) => c.notNull())
    .addColumn("identity_key", "blob", (c) => c.notNull())
    .addColumn("signed_id", "integer", (c) => c.notNull())
    .addColumn("signed_key", "blob", (c) => c.notNull())
    .addColumn("signed_signature", "blob", (c) => c.notNull())
    .addColumn("kyber_id", "integer", (c) => c.notNull())
    .addColumn("kyber_key", "blob", (c) => c.notNull())
    .addColumn("kyber_signature", "blob", (c) => c.notNull())
    .addColumn("signature", "blob", (c) => c.notNull())
    .addColumn("published_at", "integer", (c) => c.notNull())
    .addPrimaryKeyConstraint("device_keys_key", ["user_id", "device_id"])
    .execute();
  await schema
    .createTable("one_time_keys")
    .addColumn("user_id", "text", (c) => c.notNull())
    .addColumn("device_id", "integer", (c) => c.notNull())
    .addColumn("kind", "text", (c) => c.notNull())
    .addColumn("key_id", "integer", (c) => c.notNull())
    .addColumn("key", "blob")
    .addColumn("signature", "blob")
    .addColumn("taken_at", "integer")
    .addPrimaryKeyConstraint("one_time_keys_key", ["user_id", "device_id", "kind", "key_id"])
    .execute();
  await schema
    .createIndex("one_time_keys_left")
    .on("one_time_keys")
    .columns(["user_id", "device_id", "kind", "key_id"])
    .where(sql.ref("taken_at"), "is", null)
    .execute();
  await schema
    .createIndex("one_time_keys_by_time")
    .on("one_time_keys")
    .column("taken_at")
    .where("taken_at", "is not", null)
    .execute();
};

const createMailbox = async ({ schema }: Kysely<unknown>): Promise<void> => {
  await schema
    .createTable("mailbox")
    // AUTOINCREMENT: a number that was used is never used again, even after the newest row is deleted.
    .addColumn("seq", "integer", (c) => c.primaryKey().autoIncrement())
    .addColumn("recipient", "text", (c) => c.notNull())
    .addColumn("id", "text", (c) => c.notNull())
    .addColumn("sender", "text", (c) => c.notNull())
    .addColumn("kind", "text", (c) => c.notNull())
    .addColumn("size", "integer", (c) => c.notNull())
    .addColumn("received_at", "integer", (c) => c.notNull())
    .addColumn("body", "blob", (c) => c.notNull())
    .addUniqueConstraint("mailbox_once", ["recipient", "id"])
    .execute();
  await schema.createIndex("mailbox_in_order").on("mailbox").columns(["recipient", "seq"]).execute();
  await schema.createIndex("mailbox_by_time").on("mailbox").column("received_at").execute();
  await schema
    .createTable("mailbox_done")
    .addColumn("recipient", "text", (c) => c.notNull())
    .addColumn("id", "text", (c) => c.notNull())
    .addColumn("sender", "text", (c) => c.notNull())
    .addColumn("done_at", "integer", (c) => c.notNull())
    .addPrimaryKeyConstraint("mailbox_done_key", ["recipient", "id"])
    .execute();
  await schema.createIndex("mailbox_done_by_time").on("mailbox_done").column("done_at").execute();
};

const createFiles = async ({ schema }: Kysely<unknown>): Promise<void> => {
  await schema
    .createTable("files")
    .addColumn("file_id", "text", (c) => c.primaryKey())
    .addColumn("owner_id", "text", (c) => c.notNull())
    .addColumn("size_bytes", "integer", (c) => c.notNull())
    .addColumn("chunk_bytes", "integer", (c) => c.notNull())
    .addColumn("chunk_count", "integer", (c) => c.notNull())
    .addColumn("root", "blob", (c) => c.notNull())
    .addColumn("created_at", "integer", (c) => c.notNull())
    .addColumn("signature", "blob", (c) => c.notNull())
    .addColumn("version", "integer", (c) => c.notNull())
    .addColumn("registered_at", "integer", (c) => c.notNull())
    .execute();
  await schema.createIndex("files_by_owner").on("files").column("owner_id").execute();
  await schema
    .createTable("file_members")
    .addColumn("file_id", "text", (c) => c.notNull())
    .addColumn("user_id", "text", (c) => c.notNull())
    .addPrimaryKeyConstraint("file_members_key", ["file_id", "user_id"])
    .execute();
  await schema
    .createTable("seeders")
    .addColumn("file_id", "text", (c) => c.notNull())
    .addColumn("user_id", "text", (c) => c.notNull())
    .addColumn("complete", "integer", (c) => c.notNull())
    .addColumn("chunks_held", "integer", (c) => c.notNull())
    .addColumn("announced_at", "integer", (c) => c.notNull())
    .addPrimaryKeyConstraint("seeders_key", ["file_id", "user_id"])
    .execute();
};

/** Counts one sender's share of a mailbox without reading the envelopes. */
const mailboxSenders: Migration = {
  async up({ schema }: Kysely<unknown>): Promise<void> {
    await schema.createIndex("mailbox_by_sender").on("mailbox").columns(["recipient", "sender", "size"]).execute();
  },
};

const directoryAndRelay: Migration = {
  async up({ schema }: Kysely<unknown>): Promise<void> {
    await schema
      .createTable("directory")
      .addColumn("key", "blob", (c) => c.primaryKey())
      .addColumn("user_id", "text", (c) => c.notNull())
      .addColumn("device_id", "integer", (c) => c.notNull())
      .addColumn("value", "blob", (c) => c.notNull())
      .addColumn("expires_at", "integer", (c) => c.notNull())
      .execute();
    await schema.createIndex("directory_by_device").on("directory").columns(["user_id", "device_id"]).execute();
    await schema.createIndex("directory_by_time").on("directory").column("expires_at").execute();
    await schema
      .createTable("relay_usage")
      .addColumn("user_id", "text", (c) => c.notNull())
      .addColumn("day", "integer", (c) => c.notNull())
      .addColumn("bytes", "integer", (c) => c.notNull())
      .addPrimaryKeyConstraint("relay_usage_key", ["user_id", "day"])
      .execute();
    await schema.createIndex("relay_usage_by_day").on("relay_usage").column("day").execute();
  },
};

const shareLists: Migration = {
  async up({ schema }: Kysely<unknown>): Promise<void> {
    await schema
      .createTable("share_operations")
      .addColumn("file_id", "text", (c) => c.notNull())
      .addColumn("version", "integer", (c) => c.notNull())
      .addColumn("hash", "blob", (c) => c.notNull())
      .addColumn("operation", "blob", (c) => c.notNull())
      .addPrimaryKeyConstraint("share_operations_key", ["file_id", "version"])
      .execute();
    await schema
      .createTable("share_lists")
      .addColumn("file_id", "text", (c) => c.primaryKey())
      .addColumn("list", "blob", (c) => c.notNull())
      .execute();
    await schema
      .createTable("share_leavers")
      .addColumn("file_id", "text", (c) => c.notNull())
      .addColumn("user_id", "text", (c) => c.notNull())
      .addColumn("version", "integer", (c) => c.notNull())
      .addPrimaryKeyConstraint("share_leavers_key", ["file_id", "user_id"])
      .execute();
  },
};

const shareReceipts: Migration = {
  async up({ schema }: Kysely<unknown>): Promise<void> {
    await schema
      .createTable("share_receipts")
      .addColumn("file_id", "text", (c) => c.notNull())
      .addColumn("number", "integer", (c) => c.notNull())
      .addColumn("kind", "text", (c) => c.notNull())
      .addColumn("subject", "text", (c) => c.notNull())
      .addColumn("receipt", "blob", (c) => c.notNull())
      .addPrimaryKeyConstraint("share_receipts_key", ["file_id", "number"])
      .addUniqueConstraint("share_receipts_once", ["file_id", "kind", "subject"])
      .execute();
  },
};

export const migrations: MigrationProvider = {
  getMigrations: async () => ({
    "0001-start": start,
    "0002-mailbox-senders": mailboxSenders,
    "0003-directory-and-relay": directoryAndRelay,
    "0004-share-lists": shareLists,
    "0005-share-receipts": shareReceipts,
  }),
};
