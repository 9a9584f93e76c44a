import type { Bytes } from "#shared/base/bytes.ts";
import type { TimeMs } from "#shared/base/env.ts";
import type { ChatId, EnvelopeId, FileId, MessageId, UserId } from "#shared/base/ids.ts";
import type { MessageState } from "#shared/ipc/views.ts";
import type { Database } from "./database.ts";

export interface MessageRecord {
  /** Grows in the order of display. */
  readonly position: number;
  readonly chatId: ChatId;
  readonly messageId: MessageId;
  readonly senderId: UserId;
  readonly sentAtMs: TimeMs;
  readonly text: string;
  readonly fileId: FileId | null;
  readonly state: MessageState;
}

interface MessageRow {
  position: number;
  chat_id: ChatId;
  message_id: MessageId;
  sender_id: UserId;
  sent_at: number;
  text: string;
  file_id: FileId | null;
  state: MessageState;
}

const toMessage = (row: MessageRow): MessageRecord => ({
  position: row.position,
  chatId: row.chat_id,
  messageId: row.message_id,
  senderId: row.sender_id,
  sentAtMs: row.sent_at,
  text: row.text,
  fileId: row.file_id,
  state: row.state,
});

/** When we heard of it; null for not yet, and for what is not known. */
export interface ReceiptTimes {
  readonly deliveredAtMs: TimeMs | null;
  readonly readAtMs: TimeMs | null;
}

/** Sets, in an UPDATE to `@state`, when it was reached; whoever has read a message has received it. */
export const RECEIPT_TIMES_SET = `
  delivered_at = CASE WHEN @state IN ('delivered', 'read') THEN coalesce(delivered_at, @at) ELSE delivered_at END,
  read_at = CASE @state WHEN 'read' THEN coalesce(read_at, @at) ELSE read_at END`;

/** Messages as people see them, and how far each chat was read. */
export class MessagesTable {
  readonly #insert;
  readonly #get;
  readonly #last;
  readonly #before;
  readonly #raise;
  readonly #times;
  readonly #fail;
  readonly #unread;
  readonly #unreadIds;
  readonly #readUpTo;
  readonly #setReadUpTo;
  readonly #removeMessages;
  readonly #removeChat;
  readonly #byFile;
  readonly #filesBy;

  constructor(db: Database) {
    const { sql } = db;
    this.#insert = sql.prepare<Omit<MessageRow, "position">>(`
      INSERT INTO messages (chat_id, message_id, sender_id, sent_at, text, file_id, state)
      VALUES (@chat_id, @message_id, @sender_id, @sent_at, @text, @file_id, @state)
      ON CONFLICT (chat_id, message_id) DO NOTHING`);
    this.#get = sql.prepare<[string, string], MessageRow>(
      "SELECT * FROM messages WHERE chat_id = ? AND message_id = ?",
    );
    this.#last = sql.prepare<[string, number], MessageRow>(
      "SELECT * FROM messages WHERE chat_id = ? ORDER BY position DESC LIMIT ?",
    );
    this.#before = sql.prepare<[string, number, number], MessageRow>(
      "SELECT * FROM messages WHERE chat_id = ? AND position < ? ORDER BY position DESC LIMIT ?",
    );
    // A state only ever goes forward: a receipt that comes late or twice changes nothing.
    this.#raise = sql.prepare<{ chat: string; message: string; sender: string; state: string; at: number }>(`
      UPDATE messages SET state = @state, ${RECEIPT_TIMES_SET} WHERE chat_id = @chat AND message_id = @message AND sender_id = @sender AND
        instr('queued sent delivered read', state) < instr('queued sent delivered read', @state) AND state <> 'failed'`);
    this.#times = sql.prepare<[string, string], ReceiptTimes>(
      "SELECT delivered_at AS deliveredAtMs, read_at AS readAtMs FROM messages WHERE chat_id = ? AND message_id = ?",
    );
    this.#fail = sql.prepare<[string, string]>(
      "UPDATE messages SET state = 'failed' WHERE chat_id = ? AND message_id = ? AND state = 'queued'",
    );
    this.#unread = sql.prepare<{ chat: string; self: string }, { n: number }>(`
      SELECT count(*) AS n FROM messages WHERE chat_id = @chat AND sender_id <> @self AND
        position > coalesce((SELECT read_up_to FROM chats WHERE chat_id = @chat), 0)`);
    this.#unreadIds = sql.prepare<
      { chat: string; self: string },
      { position: number; message_id: MessageId; sender_id: UserId }
    >(`
      SELECT position, message_id, sender_id FROM messages WHERE chat_id = @chat AND sender_id <> @self AND
        position > coalesce((SELECT read_up_to FROM chats WHERE chat_id = @chat), 0) ORDER BY position`);
    this.#readUpTo = sql.prepare<[string], { read_up_to: number }>("SELECT read_up_to FROM chats WHERE chat_id = ?");
    this.#setReadUpTo = sql.prepare<[string, number]>(
      "INSERT INTO chats VALUES (?, ?) ON CONFLICT (chat_id) DO UPDATE SET read_up_to = max(read_up_to, excluded.read_up_to)",
    );
    this.#removeMessages = sql.prepare<[string]>("DELETE FROM messages WHERE chat_id = ?");
    this.#removeChat = sql.prepare<[string]>("DELETE FROM chats WHERE chat_id = ?");
    this.#filesBy = sql
      .prepare<[string, string], FileId>(
        "SELECT DISTINCT file_id FROM messages WHERE chat_id = ? AND sender_id = ? AND file_id IS NOT NULL",
      )
      .pluck();
    this.#byFile = sql.prepare<[string], MessageRow>("SELECT * FROM messages WHERE file_id = ? ORDER BY position");
  }

  /** False when the chat has a message of this id already. */
  insert(message: Omit<MessageRecord, "position">): boolean {
    const { chatId, messageId, senderId, sentAtMs, text, fileId, state } = message;
    const run = this.#insert.run({
      chat_id: chatId,
      message_id: messageId,
      sender_id: senderId,
      sent_at: sentAtMs,
      text,
      file_id: fileId,
      state,
    });
    return run.changes === 1;
  }

  get(chatId: ChatId, messageId: MessageId): MessageRecord | null {
    const row = this.#get.get(chatId, messageId);
    return row === undefined ? null : toMessage(row);
  }

  /** Newest first. */
  page(chatId: ChatId, limit: number, beforePosition: number | null): MessageRecord[] {
    const rows =
      beforePosition === null ? this.#last.all(chatId, limit) : this.#before.all(chatId, beforePosition, limit);
    return rows.map(toMessage);
  }

  /** False when the message is not `sender`'s, or has this state or a later one. */
  raiseState(
    chatId: ChatId,
    messageId: MessageId,
    sender: UserId,
    state: "sent" | "delivered" | "read",
    atMs: TimeMs,
  ): boolean {
    return this.#raise.run({ chat: chatId, message: messageId, sender, state, at: atMs }).changes === 1;
  }

  /** Of an own message, in a direct chat. */
  receiptTimes(chatId: ChatId, messageId: MessageId): ReceiptTimes {
    return this.#times.get(chatId, messageId) ?? { deliveredAtMs: null, readAtMs: null };
  }

  /** It never left and never will. False when it did. */
  fail(chatId: ChatId, messageId: MessageId): boolean {
    return this.#fail.run(chatId, messageId).changes === 1;
  }

  unreadCount(chatId: ChatId, self: UserId): number {
    return this.#unread.get({ chat: chatId, self })?.n ?? 0;
  }

  unread(chatId: ChatId, self: UserId): { position: number; messageId: MessageId; senderId: UserId }[] {
    return this.#unreadIds
      .all({ chat: chatId, self })
      .map(({ position, message_id, sender_id }) => ({ position, messageId: message_id, senderId: sender_id }));
  }

  readUpTo(chatId: ChatId): number {
    return this.#readUpTo.get(chatId)?.read_up_to ?? 0;
  }

  setReadUpTo(chatId: ChatId, position: number): void {
    this.#setReadUpTo.run(chatId, position);
  }

  removeChat(chatId: ChatId): void {
    this.#removeMessages.run(chatId);
    this.#removeChat.run(chatId);
  }

  filesBy(chatId: ChatId, sender: UserId): FileId[] {
    return this.#filesBy.all(chatId, sender);
  }

  byFile(fileId: FileId): MessageRecord[] {
    return this.#byFile.all(fileId).map(toMessage);
  }
}

export interface OutboxRecord {
  readonly seq: number;
  /** Padded plaintext. */
  readonly content: Bytes;
  readonly messageId: MessageId | null;
  readonly envelope: { readonly id: EnvelopeId; readonly kind: "prekey" | "message"; readonly body: Bytes } | null;
}

interface OutboxRow {
  seq: number;
  content: Uint8Array;
  message_id: MessageId | null;
  envelope_id: EnvelopeId | null;
  sealed_kind: "prekey" | "message" | null;
  sealed_body: Uint8Array | null;
}

const toOutbox = (row: OutboxRow): OutboxRecord => ({
  seq: row.seq,
  content: new Uint8Array(row.content),
  messageId: row.message_id,
  envelope:
    row.envelope_id === null || row.sealed_kind === null || row.sealed_body === null
      ? null
      : { id: row.envelope_id, kind: row.sealed_kind, body: new Uint8Array(row.sealed_body) },
});

/** Contents on their way to a peer, until the peer has them. */
export class OutboxTable {
  readonly #takeSeq;
  readonly #insert;
  readonly #get;
  readonly #nextUnstored;
  readonly #nextAfter;
  readonly #count;
  readonly #seal;
  readonly #store;
  readonly #expire;
  readonly #forget;
  readonly #remove;
  readonly #removeUpTo;
  readonly #nextOut;
  readonly #setNextOut;
  readonly #seqs;
  readonly #oldest;
  readonly #renumber;
  readonly #byEnvelope;
  readonly #unseal;
  readonly #clear;
  readonly #clearReceipts;
  readonly #peers;
  readonly #addReceipt;
  readonly #takeReceipts;

  constructor(db: Database) {
    const { sql } = db;
    const columns = "seq, content, message_id, envelope_id, sealed_kind, sealed_body";
    this.#takeSeq = sql.prepare<[string], { seq: number }>(`
      INSERT INTO streams (peer, next_out) VALUES (?, 2)
      ON CONFLICT (peer) DO UPDATE SET next_out = next_out + 1 RETURNING next_out - 1 AS seq`);
    this.#insert = sql.prepare<[string, number, Uint8Array, string | null]>(
      "INSERT INTO outbox (peer, seq, content, message_id) VALUES (?, ?, ?, ?)",
    );
    this.#get = sql.prepare<[string, number], OutboxRow>(`SELECT ${columns} FROM outbox WHERE peer = ? AND seq = ?`);
    this.#nextUnstored = sql.prepare<[string], OutboxRow>(
      `SELECT ${columns} FROM outbox WHERE peer = ? AND stored_at IS NULL ORDER BY seq LIMIT 1`,
    );
    this.#nextAfter = sql.prepare<[string, number], OutboxRow>(
      `SELECT ${columns} FROM outbox WHERE peer = ? AND seq > ? ORDER BY seq LIMIT 1`,
    );
    this.#count = sql.prepare<[string], { n: number }>("SELECT count(*) AS n FROM outbox WHERE peer = ?");
    this.#seal = sql.prepare<[string, string, Uint8Array, string, number]>(`
      UPDATE outbox SET envelope_id = ?, sealed_kind = ?, sealed_body = ?
      WHERE peer = ? AND seq = ? AND envelope_id IS NULL`);
    this.#store = sql.prepare<[number, string, number, string]>(
      "UPDATE outbox SET stored_at = ? WHERE peer = ? AND seq = ? AND envelope_id = ?",
    );
    this.#expire = sql.prepare<[number]>("UPDATE outbox SET stored_at = NULL WHERE stored_at < ?");
    this.#forget = sql.prepare<[]>("UPDATE outbox SET stored_at = NULL WHERE stored_at IS NOT NULL");
    this.#remove = sql.prepare<[string, number]>("DELETE FROM outbox WHERE peer = ? AND seq = ?");
    this.#removeUpTo = sql.prepare<[string, number]>(
      "DELETE FROM outbox WHERE peer = ? AND seq <= ? AND stored_at IS NOT NULL",
    );
    this.#nextOut = sql.prepare<[string], { next_out: number }>("SELECT next_out FROM streams WHERE peer = ?");
    this.#setNextOut = sql.prepare<[string, number]>(
      "INSERT INTO streams (peer, next_out) VALUES (?, ?) ON CONFLICT (peer) DO UPDATE SET next_out = excluded.next_out",
    );
    this.#seqs = sql.prepare<[string], { seq: number }>("SELECT seq FROM outbox WHERE peer = ? ORDER BY seq");
    this.#oldest = sql.prepare<[string], { seq: number | null }>("SELECT min(seq) AS seq FROM outbox WHERE peer = ?");
    this.#renumber = sql.prepare<[number, Uint8Array, string, number]>(`
      UPDATE outbox SET seq = ?, content = ?, envelope_id = NULL, sealed_kind = NULL, sealed_body = NULL,
        stored_at = NULL WHERE peer = ? AND seq = ?`);
    this.#byEnvelope = sql.prepare<[string, string], OutboxRow>(
      `SELECT ${columns} FROM outbox WHERE peer = ? AND envelope_id = ?`,
    );
    this.#unseal = sql.prepare<[string]>(
      "UPDATE outbox SET envelope_id = NULL, sealed_kind = NULL, sealed_body = NULL, stored_at = NULL WHERE peer = ?",
    );
    this.#clear = sql.prepare<[string]>("DELETE FROM outbox WHERE peer = ?");
    this.#clearReceipts = sql.prepare<[string]>("DELETE FROM receipts_due WHERE peer = ?");
    this.#peers = sql.prepare<[], { peer: UserId }>("SELECT peer FROM outbox UNION SELECT peer FROM receipts_due");
    this.#addReceipt = sql.prepare<[string, string, string]>("INSERT OR IGNORE INTO receipts_due VALUES (?, ?, ?)");
    this.#takeReceipts = sql.prepare<[string, string, number], { message_id: MessageId }>(`
      DELETE FROM receipts_due WHERE (peer, message_id, state) IN
        (SELECT peer, message_id, state FROM receipts_due WHERE peer = ? AND state = ? LIMIT ?) RETURNING message_id`);
  }

  /** The place of the next content to `peer`; never given twice, not even after the contact was removed. */
  takeSeq(peer: UserId): number {
    return this.#takeSeq.get(peer)?.seq ?? 1;
  }

  insert(peer: UserId, seq: number, content: Bytes, messageId: MessageId | null): void {
    this.#insert.run(peer, seq, content, messageId);
  }

  get(peer: UserId, seq: number): OutboxRecord | null {
    const row = this.#get.get(peer, seq);
    return row === undefined ? null : toOutbox(row);
  }

  /** The first that the mailbox does not have. */
  nextUnstored(peer: UserId): OutboxRecord | null {
    const row = this.#nextUnstored.get(peer);
    return row === undefined ? null : toOutbox(row);
  }

  nextAfter(peer: UserId, seq: number): OutboxRecord | null {
    const row = this.#nextAfter.get(peer, seq);
    return row === undefined ? null : toOutbox(row);
  }

  count(peer: UserId): number {
    return this.#count.get(peer)?.n ?? 0;
  }

  /** False when the row is gone or has a ciphertext already. */
  seal(peer: UserId, seq: number, id: EnvelopeId, kind: "prekey" | "message", body: Uint8Array): boolean {
    return this.#seal.run(id, kind, body, peer, seq).changes === 1;
  }

  /** False when the row is gone or was sealed anew meanwhile. */
  markStored(peer: UserId, seq: number, id: EnvelopeId, atMs: TimeMs): boolean {
    return this.#store.run(atMs, peer, seq, id).changes === 1;
  }

  /** What the mailbox has thrown away by now must be put there again. */
  expireStored(storedBeforeMs: TimeMs): void {
    this.#expire.run(storedBeforeMs);
  }

  /** No mailbox has anything of ours any more. */
  forgetStored(): void {
    this.#forget.run();
  }

  remove(peer: UserId, seq: number): boolean {
    return this.#remove.run(peer, seq).changes === 1;
  }

  /**
   * Only what the mailbox has: what is on its way over a link is acknowledged one by one, and what was just sealed again is
   * wanted again.
   */
  removeUpTo(peer: UserId, seq: number): void {
    this.#removeUpTo.run(peer, seq);
  }

  /** The place of the content that comes next. */
  nextOut(peer: UserId): number {
    return this.#nextOut.get(peer)?.next_out ?? 1;
  }

  setNextOut(peer: UserId, next: number): void {
    this.#setNextOut.run(peer, next);
  }

  /** The first place of all that wait; null when nothing does. */
  oldest(peer: UserId): number | null {
    return this.#oldest.get(peer)?.seq ?? null;
  }

  seqs(peer: UserId): number[] {
    return this.#seqs.all(peer).map((row) => row.seq);
  }

  /** Gives a content another place, which no other has; it must be sealed again. */
  renumber(peer: UserId, seq: number, next: number, content: Bytes): void {
    this.#renumber.run(next, content, peer, seq);
  }

  byEnvelope(peer: UserId, id: EnvelopeId): OutboxRecord | null {
    const row = this.#byEnvelope.get(peer, id);
    return row === undefined ? null : toOutbox(row);
  }

  unseal(peer: UserId): void {
    this.#unseal.run(peer);
  }

  clear(peer: UserId): void {
    this.#clear.run(peer);
    this.#clearReceipts.run(peer);
  }

  /** Everybody for whom something waits. */
  peers(): UserId[] {
    return this.#peers.all().map((row) => row.peer);
  }

  addReceipt(peer: UserId, messageId: MessageId, state: "delivered" | "read"): void {
    this.#addReceipt.run(peer, messageId, state);
  }

  /** Removes up to `limit` of the receipts that are due and returns them. */
  takeReceipts(peer: UserId, state: "delivered" | "read", limit: number): MessageId[] {
    return this.#takeReceipts.all(peer, state, limit).map((row) => row.message_id);
  }
}

export interface EnvelopeRecord {
  readonly id: EnvelopeId;
  readonly kind: "prekey" | "message";
  readonly body: Bytes;
  readonly arrivedAtMs: TimeMs;
}

/** What has arrived: ids seen, contents too early, envelopes held, and the next number of each sender. */
export class InboxTable {
  readonly #seen;
  readonly #see;
  readonly #prune;
  readonly #nextIn;
  readonly #setNextIn;
  readonly #early;
  readonly #getEarly;
  readonly #addEarly;
  readonly #removeEarly;
  readonly #oldestEarly;
  readonly #earlyPeers;
  readonly #hold;
  readonly #heldCount;
  readonly #isHeld;
  readonly #firstHeld;
  readonly #release;
  readonly #clearEarly;
  readonly #clearHeld;

  constructor(db: Database) {
    const { sql } = db;
    this.#seen = sql.prepare<[string, string]>("SELECT 1 FROM seen_envelopes WHERE peer = ? AND envelope_id = ?");
    this.#see = sql.prepare<[string, string, number]>("INSERT OR IGNORE INTO seen_envelopes VALUES (?, ?, ?)");
    this.#prune = sql.prepare<[number]>("DELETE FROM seen_envelopes WHERE seen_at < ?");
    this.#nextIn = sql.prepare<[string], { next_in: number | null }>("SELECT next_in FROM streams WHERE peer = ?");
    this.#setNextIn = sql.prepare<[string, number | null]>(
      "INSERT INTO streams (peer, next_in) VALUES (?, ?) ON CONFLICT (peer) DO UPDATE SET next_in = excluded.next_in",
    );
    this.#early = sql.prepare<[string], { seq: number }>("SELECT seq FROM early_contents WHERE peer = ? ORDER BY seq");
    this.#getEarly = sql.prepare<[string, number], { content: Uint8Array }>(
      "SELECT content FROM early_contents WHERE peer = ? AND seq = ?",
    );
    this.#addEarly = sql.prepare<[string, number, Uint8Array, number]>(
      "INSERT OR IGNORE INTO early_contents VALUES (?, ?, ?, ?)",
    );
    this.#removeEarly = sql.prepare<[string, number]>("DELETE FROM early_contents WHERE peer = ? AND seq = ?");
    this.#oldestEarly = sql.prepare<[string], { at: number | null }>(
      "SELECT min(arrived_at) AS at FROM early_contents WHERE peer = ?",
    );
    this.#earlyPeers = sql.prepare<[], { peer: UserId }>("SELECT DISTINCT peer FROM early_contents");
    this.#hold = sql.prepare<[string, string, string, Uint8Array, number]>(
      "INSERT OR IGNORE INTO held_envelopes (peer, envelope_id, kind, body, arrived_at) VALUES (?, ?, ?, ?, ?)",
    );
    this.#heldCount = sql.prepare<[string], { n: number }>("SELECT count(*) AS n FROM held_envelopes WHERE peer = ?");
    this.#isHeld = sql.prepare<[string, string]>("SELECT 1 FROM held_envelopes WHERE peer = ? AND envelope_id = ?");
    this.#firstHeld = sql.prepare<
      [string],
      { envelope_id: EnvelopeId; kind: "prekey" | "message"; body: Uint8Array; arrived_at: number }
    >("SELECT * FROM held_envelopes WHERE peer = ? ORDER BY position LIMIT 1");
    this.#release = sql.prepare<[string, string]>("DELETE FROM held_envelopes WHERE peer = ? AND envelope_id = ?");
    this.#clearEarly = sql.prepare<[string]>("DELETE FROM early_contents WHERE peer = ?");
    this.#clearHeld = sql.prepare<[string]>("DELETE FROM held_envelopes WHERE peer = ?");
  }

  isSeen(peer: UserId, id: EnvelopeId): boolean {
    return this.#seen.get(peer, id) !== undefined;
  }

  see(peer: UserId, id: EnvelopeId, atMs: TimeMs): void {
    this.#see.run(peer, id, atMs);
  }

  pruneSeen(beforeMs: TimeMs): void {
    this.#prune.run(beforeMs);
  }

  /** The next number that is expected of the peer: 1 at first, null when whatever comes is the start. */
  nextIn(peer: UserId): number | null {
    const row = this.#nextIn.get(peer);
    return row === undefined ? 1 : row.next_in;
  }

  setNextIn(peer: UserId, next: number | null): void {
    this.#setNextIn.run(peer, next);
  }

  earlySeqs(peer: UserId): number[] {
    return this.#early.all(peer).map((row) => row.seq);
  }

  early(peer: UserId, seq: number): Bytes | null {
    const row = this.#getEarly.get(peer, seq);
    return row === undefined ? null : new Uint8Array(row.content);
  }

  keepEarly(peer: UserId, seq: number, content: Uint8Array, atMs: TimeMs): void {
    this.#addEarly.run(peer, seq, content, atMs);
  }

  removeEarly(peer: UserId, seq: number): void {
    this.#removeEarly.run(peer, seq);
  }

  /** When the content that waits longest came; null when none waits. */
  oldestEarlyMs(peer: UserId): TimeMs | null {
    return this.#oldestEarly.get(peer)?.at ?? null;
  }

  peersWithEarly(): UserId[] {
    return this.#earlyPeers.all().map((row) => row.peer);
  }

  hold(peer: UserId, envelope: EnvelopeRecord): void {
    this.#hold.run(peer, envelope.id, envelope.kind, envelope.body, envelope.arrivedAtMs);
  }

  heldCount(peer: UserId): number {
    return this.#heldCount.get(peer)?.n ?? 0;
  }

  isHeld(peer: UserId, id: EnvelopeId): boolean {
    return this.#isHeld.get(peer, id) !== undefined;
  }

  firstHeld(peer: UserId): EnvelopeRecord | null {
    const row = this.#firstHeld.get(peer);
    if (row === undefined) return null;
    return { id: row.envelope_id, kind: row.kind, body: new Uint8Array(row.body), arrivedAtMs: row.arrived_at };
  }

  release(peer: UserId, id: EnvelopeId): void {
    this.#release.run(peer, id);
  }

  clear(peer: UserId): void {
    this.#clearEarly.run(peer);
    this.#clearHeld.run(peer);
  }
}
