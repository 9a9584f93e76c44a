import type * as v from "valibot";
import { utf8 } from "#shared/base/bytes.ts";
import type { UserId } from "#shared/base/ids.ts";
import { decodeJson } from "#shared/wire/json.ts";
import type { Database } from "./database.ts";

/** The state of the repair of each peer's session, as a JSON value; one that no longer fits its schema reads as null. */
export class SessionResetsTable<Schema extends v.GenericSchema> {
  readonly #schema: Schema;
  readonly #get;
  readonly #set;
  readonly #remove;
  readonly #peers;

  constructor(db: Database, schema: Schema) {
    const { sql } = db;
    this.#schema = schema;
    this.#get = sql.prepare<[string], { state: string }>("SELECT state FROM session_resets WHERE peer = ?");
    this.#set = sql.prepare<[string, string]>(
      "INSERT INTO session_resets VALUES (?, ?) ON CONFLICT (peer) DO UPDATE SET state = excluded.state",
    );
    this.#remove = sql.prepare<[string]>("DELETE FROM session_resets WHERE peer = ?");
    this.#peers = sql.prepare<[], { peer: UserId }>("SELECT peer FROM session_resets");
  }

  get(peer: UserId): v.InferOutput<Schema> | null {
    const row = this.#get.get(peer);
    if (row === undefined) return null;
    const state = decodeJson(this.#schema, utf8(row.state));
    return state.ok ? state.value : null;
  }

  set(peer: UserId, state: v.InferOutput<Schema>): void {
    this.#set.run(peer, JSON.stringify(state));
  }

  remove(peer: UserId): void {
    this.#remove.run(peer);
  }

  peers(): UserId[] {
    return this.#peers.all().map((row) => row.peer);
  }
}
