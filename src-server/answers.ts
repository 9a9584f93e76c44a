import { createHash } from "node:crypto";
import { deserialize, serialize } from "node:v8";
import type { Env } from "#shared/base/env.ts";
import type { EnvelopeId } from "#shared/base/ids.ts";
import { ANSWERS_REMEMBERED_MAX, IDEMPOTENCY_TTL_MS } from "#shared/base/limits.ts";
import { type Answer, type Context, type Prepared, refuse, type ServerError, type WriteContext } from "./handler.ts";
import type { Trx } from "./schema.ts";
import { type Isolation, lockName, withSavepoint } from "./store.ts";

/**
 * Idempotency: a request that is repeated with its key gets its first answer and has no second effect. What a request
 * changes and its answer are one transaction; of a refusal only the answer stays.
 */
export interface KeyedRequest<C> {
  readonly key: EnvelopeId;
  readonly name: string;
  readonly prepared: Prepared<C>;
}

/** A refusal that only says "later": a repeat is to be tried again, not answered from memory. */
const isPassing = (error: ServerError): boolean => error.type === "rate_limited";

const hashOf = (input: unknown): Buffer => createHash("sha256").update(serialize(input)).digest();

export const answerWrite = async (
  context: Context,
  isolation: Isolation,
  request: KeyedRequest<WriteContext>,
): Promise<Answer<unknown>> => {
  const { db, store, ...rest } = context;
  const { session } = context;
  const inputHash = hashOf(request.prepared.input);
  let effects: (() => void)[] = [];
  let isRepeat = false;
  const answer = await store.transact(isolation, async (trx) => {
    // A repeat that came meanwhile, over another connection or at another node, waits for the first.
    await lockName(trx, `${session.userId}/${session.deviceId}/${request.key}`);
    const before = await remembered(trx, context, request, inputHash);
    isRepeat = before !== undefined;
    // With the effects of an attempt whose COMMIT was carried out and whose answer to it was lost.
    if (before !== undefined) return before;
    effects = [];
    const afterCommit = (effect: () => void): void => void effects.push(effect);
    const result = await withSavepoint(trx, () => request.prepared.run({ ...rest, trx, afterCommit }));
    if (!result.ok) effects = [];
    if (result.ok || !isPassing(result.error)) await remember(trx, context, request, inputHash, result);
    return result;
  });
  for (const effect of effects) effect();
  if (isRepeat && answer.ok) request.prepared.repeated?.(context);
  return answer;
};

const remembered = async (
  trx: Trx,
  { session, env }: Context,
  request: KeyedRequest<WriteContext>,
  inputHash: Buffer,
): Promise<Answer<unknown> | undefined> => {
  const row = await trx
    .selectFrom("answers")
    .select(["name", "input_hash", "answer"])
    .where("user_id", "=", session.userId)
    .where("device_id", "=", session.deviceId)
    .where("key", "=", request.key)
    .where("answered_at", ">", env.clock.now() - IDEMPOTENCY_TTL_MS)
    .executeTakeFirst();
  if (row === undefined) return undefined;
  if (row.name !== request.name || !row.input_hash.equals(inputHash)) return keyReused();
  // Written below, by this program.
  return deserialize(row.answer) as Answer<unknown>;
};

const keyReused = () =>
  refuse("conflict", "This request key was used for another request. Send the request again with a new key.");

const remember = async (
  trx: Trx,
  { session, env }: Context,
  request: KeyedRequest<WriteContext>,
  inputHash: Buffer,
  answer: Answer<unknown>,
): Promise<void> => {
  const row = {
    name: request.name,
    input_hash: inputHash,
    answer: serialize(answer),
    answered_at: env.clock.now(),
  };
  await trx
    .insertInto("answers")
    .values({ user_id: session.userId, device_id: session.deviceId, key: request.key, ...row })
    // An expired one that the sweep has not met yet.
    .onConflict((conflict) => conflict.columns(["user_id", "device_id", "key"]).doUpdateSet(row))
    .execute();
};

export const sweepAnswers = async (trx: Trx, nowMs: number, rows: number): Promise<number> => {
  const result = await trx
    .deleteFrom("answers")
    .where((e) =>
      e(
        e.refTuple("user_id", "device_id", "key"),
        "in",
        e
          .selectFrom("answers")
          .select(["user_id", "device_id", "key"])
          .where("answered_at", "<=", nowMs - IDEMPOTENCY_TTL_MS)
          .limit(rows)
          .$asTuple("user_id", "device_id", "key"),
      ),
    )
    .executeTakeFirst();
  return Number(result.numDeletedRows);
};

interface Entry {
  readonly name: string;
  readonly inputHash: Buffer;
  readonly answer: Promise<Answer<unknown>>;
  readonly atMs: number;
}

/** The same for requests that leave nothing in the database: their small answers are kept in memory, the oldest go first. */
export class RecentAnswers {
  readonly #env: Env;
  readonly #entries = new Map<string, Entry>();

  constructor(env: Env) {
    this.#env = env;
  }

  answer(context: Context, request: KeyedRequest<Context>): Promise<Answer<unknown>> {
    this.#forgetExpired();
    const { session } = context;
    const id = `${session.userId}/${session.deviceId}/${request.key}`;
    const inputHash = hashOf(request.prepared.input);
    const before = this.#entries.get(id);
    if (before !== undefined) {
      const same = before.name === request.name && before.inputHash.equals(inputHash);
      return same ? before.answer : Promise.resolve(keyReused());
    }
    const answer = request.prepared.run(context);
    this.#entries.set(id, { name: request.name, inputHash, answer, atMs: this.#env.clock.now() });
    return answer;
  }

  #forgetExpired(): void {
    const oldestMs = this.#env.clock.now() - IDEMPOTENCY_TTL_MS;
    for (const [id, entry] of this.#entries) {
      if (entry.atMs > oldestMs && this.#entries.size < ANSWERS_REMEMBERED_MAX) return;
      this.#entries.delete(id);
    }
  }
}
