import * as v from "valibot";
import type { Disposable } from "#shared/base/disposable.ts";
import type { Env } from "#shared/base/env.ts";
import type { EnvelopeId, Generation } from "#shared/base/ids.ts";
import {
  SERVER_REQUEST_TIMEOUT_MS,
  SERVER_REQUESTS_IN_FLIGHT,
  SERVER_REQUESTS_WAITING_MAX,
} from "#shared/base/limits.ts";
import { fail, ok, type Result } from "#shared/base/result.ts";
import { answers, RefusalSchema } from "#shared/rendezvous/answers.ts";
import type { RequestInput, RequestName, RequestOutput } from "#shared/rendezvous/protocol.ts";

/** Writes one request to the socket; `answered` is called at most once, with whatever came back. */
export type SendRequest = (
  request: { key: EnvelopeId; name: RequestName; input: unknown },
  answered: (answer: unknown) => void,
) => void;

interface Entry {
  readonly key: EnvelopeId;
  readonly name: RequestName;
  readonly input: unknown;
  readonly deadline: Disposable;
  /** Takes the answer out of `{ok, value | error}`, checks it and tells the caller. */
  settle(answer: unknown): void;
  giveUp(): void;
  where:
    | { readonly kind: "waiting" }
    | { readonly kind: "sent"; readonly generation: Generation }
    /** The server asked for patience; the timer puts it back. */
    | { readonly kind: "resting"; readonly timer: Disposable };
}

const SuccessSchema = v.object({ ok: v.literal(true), value: v.unknown() });

/**
 * Requests in their order. They wait for a connection, at most SERVER_REQUESTS_IN_FLIGHT are on their way, and what was on
 * its way when the connection broke goes again over the next one under the same key, so that it happens once. When the
 * connection is given up on purpose they end at once: whoever quits must not wait for answers that cannot come.
 */
export class RequestQueue implements Disposable {
  readonly #env: Env;
  readonly #newKey: () => EnvelopeId;
  readonly #countStale: () => void;
  #waiting: Entry[] = [];
  readonly #entries = new Set<Entry>();
  #inFlight = 0;
  #connection: { readonly generation: Generation; readonly send: SendRequest } | null = null;
  /** Nobody wants a connection, so that none is worth waiting for. */
  #closed = false;

  constructor(env: Env, newKey: () => EnvelopeId, countStale: () => void) {
    this.#env = env;
    this.#newKey = newKey;
    this.#countStale = countStale;
  }

  request<Name extends RequestName>(name: Name, input: RequestInput<Name>): Promise<Result<RequestOutput<Name>>> {
    if (this.#closed) return Promise.resolve(unreachable());
    if (this.#entries.size >= SERVER_REQUESTS_WAITING_MAX) {
      return Promise.resolve(
        fail("too_many_requests", "Too much is waiting for the server. Try again when the connection is back."),
      );
    }
    return new Promise((resolve) => {
      const finish = (result: Result<RequestOutput<Name>>): void => {
        entry.deadline.dispose();
        if (entry.where.kind === "resting") entry.where.timer.dispose();
        this.#entries.delete(entry);
        resolve(result);
      };
      const entry: Entry = {
        key: this.#newKey(),
        name,
        input,
        deadline: this.#env.clock.setTimer(SERVER_REQUEST_TIMEOUT_MS, () => this.#timedOut(entry)),
        settle: (answer) => finish(readAnswer(name, answer)),
        giveUp: () => finish(unreachable()),
        where: { kind: "waiting" },
      };
      this.#entries.add(entry);
      this.#waiting.push(entry);
      this.#pump();
    });
  }

  connected(generation: Generation, send: SendRequest): void {
    this.#connection = { generation, send };
    this.#pump();
  }

  lost(): void {
    this.#connection = null;
    this.#inFlight = 0;
    // `#entries` is in order of asking, so everything waits in that order again.
    this.#waiting = [...this.#entries].filter((entry) => {
      if (entry.where.kind === "sent") entry.where = { kind: "waiting" };
      return entry.where.kind === "waiting";
    });
  }

  /** Gives up what waits and refuses what comes, until `open`. Their owners ask again when there is a connection. */
  close(): void {
    this.#closed = true;
    this.#connection = null;
    this.#inFlight = 0;
    for (const entry of [...this.#entries]) entry.giveUp();
    this.#waiting = [];
  }

  open(): void {
    this.#closed = false;
  }

  dispose(): void {
    this.close();
  }

  #pump(): void {
    const connection = this.#connection;
    if (connection === null) return;
    let taken = 0;
    for (const entry of this.#waiting) {
      if (this.#inFlight >= SERVER_REQUESTS_IN_FLIGHT) break;
      taken++;
      // Given up while it waited.
      if (!this.#entries.has(entry)) continue;
      this.#inFlight++;
      entry.where = { kind: "sent", generation: connection.generation };
      const { key, name, input } = entry;
      connection.send({ key, name, input }, (answer) => this.#answered(entry, connection.generation, answer));
    }
    this.#waiting.splice(0, taken);
  }

  #answered(entry: Entry, generation: Generation, answer: unknown): void {
    const isCurrent = entry.where.kind === "sent" && entry.where.generation === generation;
    if (!isCurrent || this.#connection?.generation !== generation || !this.#entries.has(entry)) {
      this.#countStale();
      return;
    }
    this.#inFlight--;
    const restMs = restOf(answer);
    if (restMs === null) entry.settle(answer);
    else this.#rest(entry, restMs);
    this.#pump();
  }

  #rest(entry: Entry, restMs: number): void {
    const timer = this.#env.clock.setTimer(restMs, () => {
      entry.where = { kind: "waiting" };
      this.#waiting.push(entry);
      this.#pump();
    });
    entry.where = { kind: "resting", timer };
  }

  #timedOut(entry: Entry): void {
    const wasSent = entry.where.kind === "sent";
    entry.giveUp();
    if (!wasSent) return;
    this.#inFlight--;
    this.#pump();
  }
}

const unreachable = () =>
  fail(
    "server_unreachable",
    "The server cannot be reached. Check your network and the server address, then try again.",
  );

/** The milliseconds after which the server wants the same request again; null when this is an answer for the caller. */
const restOf = (answer: unknown): number | null => {
  const refusal = v.safeParse(RefusalSchema, answer);
  if (!refusal.success || refusal.output.error.type !== "rate_limited") return null;
  const restMs = refusal.output.error.retryAfterMs ?? null;
  return restMs !== null && restMs < SERVER_REQUEST_TIMEOUT_MS ? restMs : null;
};

/** Checks an answer of the (untrusted) server. */
export const readAnswer = <Name extends RequestName>(name: Name, answer: unknown): Result<RequestOutput<Name>> => {
  const success = v.safeParse(SuccessSchema, answer);
  if (success.success) {
    const schema: v.GenericSchema<unknown, RequestOutput<Name>> = answers[name];
    const value = v.safeParse(schema, success.output.value, { abortEarly: true });
    return value.success ? ok(value.output) : badAnswer();
  }
  const refusal = v.safeParse(RefusalSchema, answer, { abortEarly: true });
  if (!refusal.success) return badAnswer();
  const { type, message } = refusal.output.error;
  return fail(type, message);
};

const badAnswer = () =>
  fail("bad_answer", "The server gave an answer that makes no sense. Update Weir, or use another server.");
