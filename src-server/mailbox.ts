import { assert } from "#shared/base/assert.ts";
import type { Env } from "#shared/base/env.ts";
import type { EnvelopeId, UserId } from "#shared/base/ids.ts";
import {
  MAILBOX_BYTES_MAX,
  MAILBOX_BYTES_PER_SENDER_MAX,
  MAILBOX_ENVELOPES_MAX,
  MAILBOX_ENVELOPES_PER_SENDER_MAX,
  MAILBOX_PUSH_WINDOW,
  MAILBOX_TTL_MS,
} from "#shared/base/limits.ts";
import { messageOf, ok } from "#shared/base/result.ts";
import type { RequestOutput, RequestValue } from "#shared/rendezvous/protocol.ts";
import type { Cluster } from "./cluster/cluster.ts";
import { type Answer, type Context, refuse, type WriteContext } from "./handler.ts";
import type { Db, Trx } from "./schema.ts";
import type { Online, Session } from "./session.ts";
import { forUpdate, lockAccount } from "./store.ts";

/**
 * Sealed envelopes for people who are elsewhere. A put is answered after its commit has reached the disk; envelopes are
 * pushed in the order of their commits, at most MAILBOX_PUSH_WINDOW ahead of the acknowledgements, and an
 * acknowledgement deletes. A new connection gets everything that is left again, from the oldest on. A client that cannot
 * take in a sender's mail defers that sender: otherwise a window full of it would stop everybody else's.
 */
export const putEnvelope = async (
  context: WriteContext,
  { to, id, sealed }: RequestValue<"mailbox.put">,
): Promise<Answer<RequestOutput<"mailbox.put">>> => {
  const { trx, env, session, mailboxes, afterCommit } = context;
  // Whoever puts into one mailbox does it after the other: a number that is given later is then seen later, and a reader
  // that has gone on to a number has missed none before it.
  const account = await forUpdate(
    trx,
    trx.selectFrom("accounts").select(["mailbox_envelopes", "mailbox_bytes"]).where("user_id", "=", to),
  ).executeTakeFirst();
  if (account === undefined) {
    return refuse(
      "unknown_user",
      "This person has not been at this server yet. The message can be sent once they have started Weir with it.",
    );
  }
  const sender = await senderOf(trx, to, id);
  if (sender !== undefined) {
    if (sender === session.userId) {
      afterCommit(() => mailboxes.wake(to));
      return ok({ stored: false });
    }
    return refuse("conflict", "This envelope id is taken. Send the message again under another id.");
  }
  const size = sealed.body.length;
  if (account.mailbox_envelopes >= MAILBOX_ENVELOPES_MAX || account.mailbox_bytes + size > MAILBOX_BYTES_MAX) {
    return refuse(
      "mailbox_full",
      "The mailbox of this person is full. The message can be sent once they have been online.",
    );
  }
  if (!(await hasShare(trx, to, session.userId, account, size))) {
    return refuse(
      "mailbox_full",
      "Too much of yours waits for this person. The message can be sent once they have been online.",
    );
  }
  await trx
    .insertInto("mailbox")
    .values({
      recipient: to,
      id,
      sender: session.userId,
      kind: sealed.kind,
      body: sealed.body,
      size,
      received_at: env.clock.now(),
    })
    .execute();
  await changeUsage(trx, to, 1, size);
  afterCommit(() => mailboxes.wake(to));
  return ok({ stored: true });
};

/** After a repeat: the node that stored the envelope may have ended before it told the recipient's. */
export const wakeAgain = ({ mailboxes }: Context, { to }: RequestValue<"mailbox.put">): void => mailboxes.wake(to);

/** A mailbox with less in it than one sender may have needs no counting. */
const hasShare = async (
  trx: Trx,
  recipient: string,
  sender: string,
  whole: { mailbox_envelopes: number; mailbox_bytes: number },
  size: number,
): Promise<boolean> => {
  const fits = (envelopes: number, bytes: number): boolean =>
    envelopes < MAILBOX_ENVELOPES_PER_SENDER_MAX && bytes + size <= MAILBOX_BYTES_PER_SENDER_MAX;
  if (fits(whole.mailbox_envelopes, whole.mailbox_bytes)) return true;
  const { envelopes, bytes } = await trx
    .selectFrom("mailbox")
    .select((e) => [e.fn.countAll<number>().as("envelopes"), e.fn.sum<number | null>("size").as("bytes")])
    .where("recipient", "=", recipient)
    .where("sender", "=", sender)
    .executeTakeFirstOrThrow();
  return fits(Number(envelopes), Number(bytes ?? 0));
};

/** Who put this envelope before, whether it is still here or was acknowledged lately. */
const senderOf = async (trx: Trx, recipient: string, id: string): Promise<string | undefined> => {
  const here = await trx
    .selectFrom("mailbox")
    .select("sender")
    .where("recipient", "=", recipient)
    .where("id", "=", id)
    .executeTakeFirst();
  if (here !== undefined) return here.sender;
  const done = await trx
    .selectFrom("mailbox_done")
    .select("sender")
    .where("recipient", "=", recipient)
    .where("id", "=", id)
    .executeTakeFirst();
  return done?.sender;
};

const changeUsage = async (trx: Trx, userId: string, envelopes: number, bytes: number): Promise<void> => {
  await trx
    .updateTable("accounts")
    .set((e) => ({
      mailbox_envelopes: e("mailbox_envelopes", "+", envelopes),
      mailbox_bytes: e("mailbox_bytes", "+", bytes),
    }))
    .where("user_id", "=", userId)
    .execute();
};

export const acknowledgeEnvelopes = async (
  { trx, env, session, mailboxes, afterCommit }: WriteContext,
  { ids }: RequestValue<"mailbox.ack">,
): Promise<Answer<RequestOutput<"mailbox.ack">>> => {
  await lockAccount(trx, session.userId);
  const deleted = await trx
    .deleteFrom("mailbox")
    .where("recipient", "=", session.userId)
    .where("id", "in", ids)
    .returning(["id", "sender", "size"])
    .execute();
  const now = env.clock.now();
  for (const { id, sender } of deleted) {
    await trx.insertInto("mailbox_done").values({ recipient: session.userId, id, sender, done_at: now }).execute();
  }
  if (deleted.length > 0) {
    const bytes = deleted.reduce((sum, row) => sum + row.size, 0);
    await changeUsage(trx, session.userId, -deleted.length, -bytes);
  }
  afterCommit(() => mailboxes.acknowledged(session, ids));
  return ok({ deleted: deleted.length });
};

export const deferSenders = async (
  { mailboxes, session }: Context,
  { senders }: RequestValue<"mailbox.defer">,
): Promise<Answer<RequestOutput<"mailbox.defer">>> => {
  mailboxes.defer(session, senders);
  return ok({});
};

export const pendingEnvelopes = async (trx: Trx, userId: string, sinceMs: number): Promise<number> => {
  const row = await trx
    .selectFrom("mailbox")
    .select((e) => e.fn.countAll<number>().as("pending"))
    .where("recipient", "=", userId)
    .where("received_at", ">", sinceMs)
    .executeTakeFirstOrThrow();
  return row.pending;
};

/** Deletes what nobody fetched in MAILBOX_TTL_MS. Returns how many envelopes went. */
export const sweepEnvelopes = async (trx: Trx, nowMs: number, rows: number): Promise<number> => {
  const expired = await trx
    .selectFrom("mailbox")
    .select(["seq", "recipient"])
    .where("received_at", "<=", nowMs - MAILBOX_TTL_MS)
    .orderBy("received_at")
    .limit(rows)
    .execute();
  if (expired.length === 0) return 0;
  // Account before envelope, as an acknowledgement does it, so that neither waits for the other.
  const recipients = [...new Set(expired.map((row) => row.recipient))].sort();
  for (const recipient of recipients) await lockAccount(trx, recipient);
  const seqs = expired.map((row) => row.seq);
  const deleted = await trx.deleteFrom("mailbox").where("seq", "in", seqs).returning(["recipient", "size"]).execute();
  for (const { recipient, size } of deleted) await changeUsage(trx, recipient, -1, -size);
  return expired.length;
};

export const sweepAcknowledged = async (trx: Trx, beforeMs: number, rows: number): Promise<number> => {
  const result = await trx
    .deleteFrom("mailbox_done")
    .where((e) =>
      e(
        e.refTuple("recipient", "id"),
        "in",
        e
          .selectFrom("mailbox_done")
          .select(["recipient", "id"])
          .where("done_at", "<=", beforeMs)
          .limit(rows)
          .$asTuple("recipient", "id"),
      ),
    )
    .executeTakeFirst();
  return Number(result.numDeletedRows);
};

/** Pushes envelopes to the sessions of their recipients. */
export class Mailboxes {
  readonly #db: Db;
  readonly #env: Env;
  readonly #online: Online;
  readonly #cluster: Cluster;
  readonly #pumps = new Map<Session, Pump>();

  constructor(db: Db, env: Env, online: Online, cluster: Cluster) {
    this.#db = db;
    this.#env = env;
    this.#online = online;
    this.#cluster = cluster;
  }

  /** Call once the login is answered: the client then knows what the pushes belong to. */
  open(session: Session): void {
    assert(!this.#pumps.has(session), "a session has one pump");
    const pump = new Pump(this.#db, this.#env, session);
    this.#pumps.set(session, pump);
    pump.wake();
  }

  close(session: Session): void {
    this.#pumps.delete(session);
  }

  /** Something was stored for this user. */
  wake(userId: UserId): void {
    this.wakeHere(userId);
    for (const nodeId of this.#cluster.nodesOf(userId)) this.#cluster.send(nodeId, { type: "wake", userId });
  }

  /** The part of `wake` for the sessions of this node. */
  wakeHere(userId: UserId): void {
    for (const session of this.#online.of(userId)) this.#pumps.get(session)?.wake();
  }

  /** Something may have been stored for anybody. */
  wakeAll(): void {
    for (const pump of this.#pumps.values()) pump.wake();
  }

  acknowledged({ userId }: Session, ids: readonly EnvelopeId[]): void {
    this.acknowledgedHere(userId, ids);
    for (const nodeId of this.#cluster.nodesOf(userId)) {
      this.#cluster.send(nodeId, { type: "acknowledged", userId, ids });
    }
  }

  acknowledgedHere(userId: UserId, ids: readonly EnvelopeId[]): void {
    for (const session of this.#online.of(userId)) this.#pumps.get(session)?.acknowledged(ids);
  }

  defer(session: Session, senders: readonly UserId[]): void {
    this.#pumps.get(session)?.defer(senders);
  }

  /** Resolves when no pump reads the database any more. */
  async idle(): Promise<void> {
    await Promise.all([...this.#pumps.values()].map((pump) => pump.idle));
  }
}

/** Reads from the database one window at a time, so that a full mailbox never lies in memory. */
class Pump {
  readonly #db: Db;
  readonly #env: Env;
  readonly #session: Session;
  /** Ids that were pushed, and who sent them. */
  readonly #unacknowledged = new Map<string, string>();
  #deferred: ReadonlySet<string> = new Set();
  #lastSeq = 0;
  /** Grows when `#deferred` changes: rows that were read before are not what should be pushed now. */
  #reads = 0;
  /** `again`: something changed while a read was under way, so that another must follow. */
  #state: "idle" | "reading" | "again" = "idle";
  idle: Promise<void> = Promise.resolve();

  constructor(db: Db, env: Env, session: Session) {
    this.#db = db;
    this.#env = env;
    this.#session = session;
  }

  wake(): void {
    if (this.#state !== "idle") {
      this.#state = "again";
      return;
    }
    this.#state = "reading";
    this.idle = this.#run().catch((error: unknown) => {
      // The envelopes stay where they are; the client fetches them with its next connection.
      this.#env.log.error("envelopes could not be read", { error: messageOf(error) });
      this.#session.close();
    });
  }

  acknowledged(ids: readonly string[]): void {
    let freed = false;
    for (const id of ids) freed = this.#unacknowledged.delete(id) || freed;
    if (freed) this.wake();
  }

  defer(senders: readonly string[]): void {
    this.#deferred = new Set(senders);
    for (const [id, sender] of this.#unacknowledged) if (this.#deferred.has(sender)) this.#unacknowledged.delete(id);
    this.#lastSeq = 0;
    this.#reads++;
    this.wake();
  }

  async #run(): Promise<void> {
    try {
      do {
        this.#state = "reading";
        await this.#pushWindow();
        // `wake` may have changed the state during the await, which the compiler cannot know.
      } while (this.#wokenMeanwhile() && this.#session.open);
    } finally {
      this.#state = "idle";
    }
  }

  #wokenMeanwhile(): boolean {
    return this.#state === "again";
  }

  async #pushWindow(): Promise<void> {
    const room = MAILBOX_PUSH_WINDOW - this.#unacknowledged.size;
    if (room <= 0 || !this.#session.open) return;
    const reads = this.#reads;
    let query = this.#db
      .selectFrom("mailbox")
      .select(["seq", "id", "sender", "kind", "body", "received_at"])
      .where("recipient", "=", this.#session.userId)
      .where("seq", ">", this.#lastSeq)
      .where("received_at", ">", this.#env.clock.now() - MAILBOX_TTL_MS)
      .orderBy("seq")
      .limit(room);
    // After a change of what is deferred the mailbox is read from its start, past what is on its way already.
    if (this.#reads > 0) query = query.where("id", "not in", [...this.#unacknowledged.keys(), ""]);
    if (this.#deferred.size > 0) query = query.where("sender", "not in", [...this.#deferred]);
    const rows = await query.execute();
    if (reads !== this.#reads) return;
    for (const row of rows) {
      this.#lastSeq = row.seq;
      this.#unacknowledged.set(row.id, row.sender);
      this.#session.push({
        name: "envelope",
        value: {
          // Both were checked when the envelope was put.
          id: row.id as EnvelopeId,
          from: row.sender as UserId,
          sealed: { kind: row.kind, body: row.body },
          receivedAtMs: row.received_at,
        },
      });
    }
  }
}
