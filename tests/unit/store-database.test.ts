import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as v from "valibot";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { GroupIdSchema } from "#shared/base/ids.ts";
import { systemRandom } from "../../src-main/env.ts";
import { Database } from "../../src-main/store/database.ts";
import { OpenDatabaseError, openErrorOf } from "../../src-main/store/errors.ts";
import { GroupsTable } from "../../src-main/store/groups.ts";
import type { Migration } from "../../src-main/store/migrate.ts";
import { NewerDatabaseError } from "../../src-main/store/migrate.ts";
import { groupPlacesSchema } from "../../src-main/store/schema/0019-group-places.ts";
import { appMigrations } from "../../src-main/store/schema/app.ts";
import { SettingsTable } from "../../src-main/store/settings.ts";

const notes: Migration = { name: "0001-notes", sql: "CREATE TABLE notes (text TEXT NOT NULL) STRICT" };
const more: Migration = { name: "0002-more", sql: "ALTER TABLE notes ADD COLUMN at INTEGER NOT NULL DEFAULT 7" };
const SECRET = "the treasure is under the third oak";

let directory: string;
let path: string;
const key = systemRandom.bytes(32);
const open: Database[] = [];
const own = (db: Database): Database => {
  open.push(db);
  return db;
};
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "weir-store-"));
  path = join(directory, "app.db");
});
afterEach(() => {
  for (const db of open.splice(0)) db.dispose();
  rmSync(directory, { recursive: true, force: true });
});

const kinds = [
  ["app.db", (migrations: readonly Migration[]) => own(Database.openApp(path, key, migrations))],
  ["chunks.db", (migrations: readonly Migration[]) => own(Database.openChunks(path, migrations))],
] as const;
const errorOf = (body: () => unknown): unknown => {
  try {
    body();
  } catch (error) {
    return error;
  }
  throw new Error("nothing was thrown");
};
const texts = (db: Database): string[] =>
  db.sql
    .prepare<[], { text: string }>("SELECT text FROM notes ORDER BY rowid")
    .all()
    .map((row) => row.text);

describe.each(kinds)("%s", (_name, openIt) => {
  test("does not wait for the disk with what can be done again, and does with everything else", () => {
    const db = openIt([notes]);
    const level = (): unknown => db.sql.pragma("synchronous", { simple: true });
    const insert = db.sql.prepare("INSERT INTO notes (text) VALUES (?)");
    const seen: unknown[] = [];
    db.repeatableTransaction(() => {
      insert.run("a");
      seen.push(level());
    });
    seen.push(level());
    expect(() =>
      db.repeatableTransaction(() => {
        insert.run("b");
        throw new Error("no");
      }),
    ).toThrow("no");
    seen.push(level());
    // Part of one that is durable, it is durable.
    db.transaction(() => db.repeatableTransaction(() => seen.push(level())));
    expect(seen).toEqual([1, 2, 2, 2]);
    expect(db.sql.prepare("SELECT text FROM notes").pluck().all()).toEqual(["a"]);
  });

  test("is durable after the first write: WAL with synchronous = FULL", () => {
    const db = openIt([notes]);
    db.transaction(() => db.sql.exec("INSERT INTO notes VALUES ('x')"));
    expect(db.sql.pragma("journal_mode", { simple: true })).toBe("wal");
    expect(db.sql.pragma("synchronous", { simple: true })).toBe(2);
    db.sql.exec("INSERT INTO notes VALUES ('outside of a transaction')");
    expect(db.sql.pragma("synchronous", { simple: true })).toBe(2);
    expect(db.sql.pragma("foreign_keys", { simple: true })).toBe(1);
  });

  test("keeps what was committed and nothing of what was not", () => {
    const db = openIt([notes]);
    db.transaction(() => db.sql.exec("INSERT INTO notes VALUES ('kept')"));
    expect(() =>
      db.transaction(() => {
        db.sql.exec("INSERT INTO notes VALUES ('lost')");
        throw new Error("half way");
      }),
    ).toThrow("half way");
    db.dispose();
    expect(texts(openIt([notes]))).toEqual(["kept"]);
  });

  test("a failed inner transaction undoes itself only", () => {
    const db = openIt([notes]);
    db.transaction(() => {
      db.sql.exec("INSERT INTO notes VALUES ('outer')");
      expect(() =>
        db.transaction(() => {
          db.sql.exec("INSERT INTO notes VALUES ('inner')");
          throw new Error("inner");
        }),
      ).toThrow("inner");
    });
    expect(texts(db)).toEqual(["outer"]);
  });

  test("refuses a transaction that would span an await", () => {
    const db = openIt([notes]);
    expect(() => db.transaction(async () => db.sql.exec("INSERT INTO notes VALUES ('late')"))).toThrow(/promise/i);
    expect(texts(db)).toEqual([]);
  });

  test("applies what is missing, once and in order", () => {
    openIt([notes]).dispose();
    const db = openIt([notes, more]);
    db.sql.exec("INSERT INTO notes (text) VALUES ('x')");
    expect(db.sql.prepare("SELECT at FROM notes").get()).toEqual({ at: 7 });
    db.dispose();
    expect(texts(openIt([notes, more]))).toEqual(["x"]);
  });

  test("a migration that fails half way leaves nothing behind", () => {
    openIt([notes]).dispose();
    const broken: Migration = { name: "0002-broken", sql: "CREATE TABLE a (x); CREATE TABLE a (x);" };
    expect(() => openIt([notes, broken])).toThrow(/already exists/);
    const db = openIt([notes, more]);
    expect(db.sql.prepare("SELECT count(*) AS n FROM sqlite_schema WHERE name = 'a'").get()).toEqual({ n: 0 });
  });

  test("of a newer Weir is left untouched", () => {
    openIt([notes, more]).dispose();
    const before = readFileSync(path);
    const error = errorOf(() => openIt([notes]));
    expect(error).toBeInstanceOf(NewerDatabaseError);
    expect(error).toMatchObject({ type: "newer_database", message: expect.stringContaining("Update Weir") });
    expect(readFileSync(path).equals(before)).toBe(true);
  });

  test("that is a folder is an error in words", () => {
    mkdirSync(path);
    expect(errorOf(() => openIt([notes]))).toMatchObject({ type: "not_accessible" });
  });

  test("in a folder that is not there is an error in words", () => {
    path = join(directory, "missing", "app.db");
    expect(errorOf(() => openIt([notes]))).toMatchObject({
      type: "not_accessible",
      message: expect.stringContaining("folder"),
    });
  });
});

describe("app.db", () => {
  const openApp = (): Database => own(Database.openApp(path, key, appMigrations));

  test("shows nothing of its content, in any of its files", () => {
    const db = openApp();
    new SettingsTable(db).set("note", SECRET);
    for (const name of readdirSync(directory)) {
      const bytes = readFileSync(join(directory, name));
      // WAL and shared-memory files have their own plain headers; their pages are encrypted.
      expect(bytes.subarray(0, 15).toString("latin1")).not.toBe("SQLite format 3");
      expect(bytes.includes(SECRET)).toBe(false);
      expect(bytes.includes("CREATE TABLE")).toBe(false);
    }
    expect(readFileSync(path).length).toBeGreaterThan(0);
    db.dispose();
    expect(readFileSync(path).includes(SECRET)).toBe(false);
  });

  test("with the wrong key is an error in words and stays as it is", () => {
    openApp().dispose();
    const before = readFileSync(path);
    const wrong = new Uint8Array(key);
    wrong[31] = (wrong[31] ?? 0) ^ 1;
    const error = errorOf(() => Database.openApp(path, wrong, appMigrations));
    expect(error).toBeInstanceOf(OpenDatabaseError);
    expect(error).toMatchObject({ type: "wrong_key", message: expect.stringContaining("backup") });
    expect(readFileSync(path).equals(before)).toBe(true);
    openApp();
  });

  test("overwrites what is deleted", () => {
    expect(openApp().sql.pragma("secure_delete", { simple: true })).toBe(2);
  });
});

describe("chunks.db", () => {
  test("that is no database is damaged", () => {
    writeFileSync(path, systemRandom.bytes(8192));
    expect(errorOf(() => Database.openChunks(path, [notes]))).toMatchObject({ type: "damaged" });
  });

  test("has 64 KiB pages and gives freed ones back", () => {
    const { sql } = own(Database.openChunks(path, [notes]));
    expect(sql.pragma("page_size", { simple: true })).toBe(65536);
    expect(sql.pragma("auto_vacuum", { simple: true })).toBe(2);
  });
});

describe("errors of opening", () => {
  const withCode = (code: string): Error => Object.assign(new Error(code), { code });

  test.each([
    ["SQLITE_FULL", "disk_full"],
    ["ENOSPC", "disk_full"],
    ["SQLITE_IOERR_SHMSIZE", "disk_full"],
    ["SQLITE_CANTOPEN", "not_accessible"],
    ["SQLITE_READONLY_DIRECTORY", "not_accessible"],
    ["SQLITE_CORRUPT", "damaged"],
    ["SQLITE_CORRUPT_INDEX", "damaged"],
    ["SQLITE_NOTADB", "wrong_key"],
  ])("%s is %s", (code, type) => {
    expect(openErrorOf(withCode(code), "wrong_key")).toMatchObject({ type });
  });

  test("bugs stay what they are", () => {
    expect(openErrorOf(new TypeError("x is not a function"), "wrong_key")).toBe(null);
    expect(openErrorOf(withCode("SQLITE_CONSTRAINT"), "wrong_key")).toBe(null);
    expect(openErrorOf("text", "wrong_key")).toBe(null);
  });
});

describe("the settings table", () => {
  test("gives back what was set, after a restart too, and null for what no longer fits", () => {
    const openApp = (): Database => own(Database.openApp(path, key, appMigrations));
    const schema = v.object({ theme: v.picklist(["light", "dark"]) });
    const first = openApp();
    const settings = new SettingsTable(first);
    expect(settings.get("look", schema)).toBe(null);
    settings.set("look", { theme: "light" });
    settings.set("look", { theme: "dark" });
    first.dispose();
    const again = new SettingsTable(openApp());
    expect(again.get("look", schema)).toEqual({ theme: "dark" });
    expect(again.get("look", v.object({ theme: v.literal("blue") }))).toBe(null);
  });
});

test("operations of groups from before their places were stored come behind the messages that are older", () => {
  const before = appMigrations.slice(0, appMigrations.indexOf(groupPlacesSchema));
  const old = own(Database.openApp(path, key, before));
  const groupId = v.parse(GroupIdSchema, `g${"a".repeat(32)}`);
  old.sql.prepare("INSERT INTO groups (group_id) VALUES (?)").run(groupId);
  const message = old.sql.prepare(
    "INSERT INTO messages (chat_id, message_id, sender_id, sent_at, text, state) VALUES (?, ?, 'bob', ?, '', 'read')",
  );
  message.run("another chat", "other", 1);
  for (const atMs of [100, 200, 300]) message.run(groupId, `m${atMs}`, atMs);
  const operation = old.sql.prepare("INSERT INTO group_operations VALUES (?, ?, ?, ?)");
  // The clock of whoever made the third one was wrong: it came behind the second all the same.
  [50, 250, 150, 400].forEach((atMs, position) => {
    operation.run(groupId, position, `hash ${position}`, Buffer.from(JSON.stringify({ atMs })));
  });
  old.dispose();
  const table = new GroupsTable(own(Database.openApp(path, key, appMigrations)));
  expect(table.places(groupId)).toEqual([null, "m200", "m200", "m300"]);
});
