import * as v from "valibot";
import type { Env } from "#shared/base/env.ts";
import { type AppError, fail, type Result } from "#shared/base/result.ts";
import type { ServerErrorType } from "#shared/rendezvous/protocol.ts";
import type { Cluster } from "./cluster/cluster.ts";
import type { Mailboxes } from "./mailbox.ts";
import type { Presence } from "./presence.ts";
import type { Rates } from "./rates.ts";
import type { Relays } from "./relays.ts";
import type { Db, Trx } from "./schema.ts";
import type { Online, Session } from "./session.ts";
import type { Isolation, Store } from "./store.ts";
import type { IceOptions } from "./turn.ts";

export interface ServerError extends AppError {
  readonly type: ServerErrorType;
  /** With `rate_limited`: when a repeat has a chance. */
  readonly retryAfterMs?: number;
}
export type Answer<T> = Result<T, ServerError>;

export const refuse = (type: ServerErrorType, message: string) => fail<ServerErrorType>(type, message);

/** What every request can use. */
export interface Services {
  readonly env: Env;
  readonly store: Store;
  readonly db: Db;
  readonly cluster: Cluster;
  readonly online: Online;
  readonly presence: Presence;
  readonly mailboxes: Mailboxes;
  readonly rates: Rates;
  readonly relays: Relays;
  readonly ice: IceOptions;
}

export interface Context extends Services {
  readonly session: Session;
}

/** Inside the transaction of the request: `trx` is the only way to the database here. */
export interface WriteContext extends Omit<Context, "db" | "store"> {
  readonly trx: Trx;
  /** Runs after the commit, and only then: nobody is told of what a kill could still undo. */
  afterCommit(effect: () => void): void;
}

/**
 * How a request meets a repeat with the same idempotency key:
 * - `write`: effect and answer are stored in one transaction; a repeat gets the stored answer.
 * - `once`: nothing is stored in the database; the answer is remembered in memory.
 * - `read`: changes nothing that outlives the connection; a repeat is simply answered again.
 */
export type Handler =
  | {
      readonly kind: "write";
      readonly cost: number;
      readonly isolation: Isolation;
      prepare(input: unknown): Answer<Prepared<WriteContext>>;
    }
  | { readonly kind: "once" | "read"; readonly cost: number; prepare(input: unknown): Answer<Prepared<Context>> };

/** A request whose input is valid. Of one that writes, `run` may run again in another transaction. */
export interface Prepared<C> {
  readonly input: unknown;
  run(context: C): Promise<Answer<unknown>>;
  /** When a repeat got the first answer: what followed the commit may have died with the node that did it. */
  repeated?(context: Context): void;
}

type Run<C, Input, Output> = (context: C, input: Input) => Promise<Answer<Output>>;

/** @returns `bad_request` that names the first field that is wrong, never its content. */
export const parseInput = <Output>(schema: v.GenericSchema<unknown, Output>, input: unknown): Answer<Output> => {
  const parsed = v.safeParse(schema, input, { abortEarly: true });
  if (parsed.success) return { ok: true, value: parsed.output };
  const path = parsed.issues[0].path?.map((item) => String(item.key).slice(0, 32)).join(".") ?? "";
  const where = path === "" ? "The request" : `The field "${path}" of the request`;
  return refuse("bad_request", `${where} is malformed. Update Weir, or report this if it is up to date.`);
};

const prepareWith =
  <C, Input, Output>(
    schema: v.GenericSchema<unknown, Input>,
    run: Run<C, Input, Output>,
    repeated?: (context: Context, input: Input) => void,
  ) =>
  (raw: unknown): Answer<Prepared<C>> => {
    const input = parseInput(schema, raw);
    if (!input.ok) return input;
    return {
      ok: true,
      value: {
        input: input.value,
        run: (context) => run(context, input.value),
        repeated: (context) => repeated?.(context, input.value),
      },
    };
  };

/** `cost`: how much of the account's general rate one request uses up. */
export const write = <Input, Output>(
  schema: v.GenericSchema<unknown, Input>,
  cost: number,
  run: Run<WriteContext, Input, Output>,
): Handler => ({ kind: "write", cost, isolation: "serializable", prepare: prepareWith(schema, run) });

/** For what is frequent or contended: `run` takes the locks of `store.ts` that it needs. */
export const lockedWrite = <Input, Output>(
  schema: v.GenericSchema<unknown, Input>,
  cost: number,
  run: Run<WriteContext, Input, Output>,
  repeated?: (context: Context, input: Input) => void,
): Handler => ({ kind: "write", cost, isolation: "locked", prepare: prepareWith(schema, run, repeated) });

export const once = <Input, Output>(
  schema: v.GenericSchema<unknown, Input>,
  cost: number,
  run: Run<Context, Input, Output>,
): Handler => ({ kind: "once", cost, prepare: prepareWith(schema, run) });

export const read = <Input, Output>(
  schema: v.GenericSchema<unknown, Input>,
  cost: number,
  run: Run<Context, Input, Output>,
): Handler => ({ kind: "read", cost, prepare: prepareWith(schema, run) });
