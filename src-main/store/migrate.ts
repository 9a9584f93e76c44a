import { assert } from "#shared/base/assert.ts";
import type { SqliteConnection } from "./database.ts";

export interface Migration {
  /** Never renamed once released: it is what the database remembers. */
  readonly name: string;
  readonly sql: string;
}

/** A database from a newer Weir is left untouched. */
export class NewerDatabaseError extends Error {
  override readonly name = "NewerDatabaseError";
  readonly type = "newer_database";
}

/**
 * Applies what is missing, in order, each in its own transaction together with its entry in `migrations`.
 * @throws NewerDatabaseError when the database knows a migration that this program does not; nothing is written then.
 */
export const migrate = (sql: SqliteConnection, migrations: readonly Migration[]): void => {
  assert(new Set(migrations.map((m) => m.name)).size === migrations.length, "two migrations share a name");
  const applied = appliedMigrations(sql);
  const unknown = [...applied].filter((name) => !migrations.some((m) => m.name === name));
  if (unknown.length > 0) {
    throw new NewerDatabaseError(
      `The data was written by a newer version of Weir (${unknown.join(", ")}). Update Weir.`,
    );
  }
  sql.exec("CREATE TABLE IF NOT EXISTS migrations (name TEXT PRIMARY KEY, applied_at INTEGER NOT NULL) STRICT");
  const record = sql.prepare("INSERT INTO migrations (name, applied_at) VALUES (?, unixepoch())");
  for (const migration of migrations) {
    if (applied.has(migration.name)) continue;
    sql.transaction(() => {
      sql.exec(migration.sql);
      record.run(migration.name);
    })();
  }
};

const appliedMigrations = (sql: SqliteConnection): Set<string> => {
  const table = sql.prepare("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'migrations'").get();
  if (table === undefined) return new Set();
  const rows = sql.prepare<[], { name: string }>("SELECT name FROM migrations").all();
  return new Set(rows.map((row) => row.name));
};
