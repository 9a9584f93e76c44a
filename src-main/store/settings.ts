import type * as v from "valibot";
import { utf8 } from "#shared/base/bytes.ts";
import { decodeJson } from "#shared/wire/json.ts";
import type { Database } from "./database.ts";

/** Single JSON values by key. A value that no longer fits its schema reads as null: defaults take its place. */
export class SettingsTable {
  readonly #get;
  readonly #set;

  constructor(db: Database) {
    this.#get = db.sql.prepare<[string], { value: string }>("SELECT value FROM settings WHERE key = ?");
    this.#set = db.sql.prepare<[string, string]>(
      "INSERT INTO settings (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
    );
  }

  get<Schema extends v.GenericSchema>(key: string, schema: Schema): v.InferOutput<Schema> | null {
    const row = this.#get.get(key);
    if (row === undefined) return null;
    const value = decodeJson(schema, utf8(row.value));
    return value.ok ? value.value : null;
  }

  set(key: string, value: unknown): void {
    this.#set.run(key, JSON.stringify(value));
  }
}
