import * as v from "valibot";
import { toBase64Url, utf8 } from "#shared/base/bytes.ts";
import { type FileId, FileIdSchema, type UserId, UserIdSchema } from "#shared/base/ids.ts";
import { decodeJson } from "#shared/wire/json.ts";
import { type FileOffer, FileOfferSchema } from "#shared/wire/manifest.ts";
import type { Database } from "./database.ts";

/** A file that we own or were offered. */
export interface FileRecord {
  readonly offer: FileOffer;
  readonly sharedWith: readonly v.InferOutput<typeof UserIdSchema>[];
  readonly version: number;
  /** Null for files of others. */
  readonly sourcePath: string | null;
  /** The server has the record and knows whether we hold the file. */
  readonly registered: boolean;
  /** Not `granted`: taken back by the owner, or given up; the key is gone then. */
  readonly access: FileAccess;
}

export type FileAccess = "granted" | "revoked" | "left";

interface Row {
  file_id: string;
  owner_id: string;
  name: string;
  size_bytes: number;
  chunk_bytes: number;
  chunk_count: number;
  root: Buffer;
  created_at_ms: number;
  signature: Buffer;
  key: Buffer;
  sha256: Buffer;
  shared_with: string;
  version: number;
  source_path: string | null;
  registered: number;
  access: FileAccess;
  list_bytes: number | null;
  folder_files: number | null;
  replaces: string | null;
}

/** What a key that was deleted is overwritten with. */
const NO_KEY = Buffer.alloc(32);

const Members = v.array(UserIdSchema);

/** Values of the column `registered`. */
const UNREGISTERED = 0;
const REGISTERED = 1;
/** The server has the record, and was told that the file is gone from here. */
const REGISTERED_GONE = 2;

/** SQL of the table `files` in app.db. */
export class FilesTable {
  readonly #statements;

  constructor(db: Database) {
    this.#statements = {
      insert: db.sql.prepare<[Row]>(
        "INSERT INTO files VALUES (@file_id, @owner_id, @name, @size_bytes, @chunk_bytes, @chunk_count, @root, " +
          "@created_at_ms, @signature, @key, @sha256, @shared_with, @version, @source_path, @registered, @access, " +
          "@list_bytes, @folder_files, @replaces)",
      ),
      get: db.sql.prepare<[string], Row>("SELECT * FROM files WHERE file_id = ?"),
      replacements: db.sql
        .prepare<[], string>("SELECT file_id FROM files WHERE replaces IS NOT NULL AND source_path IS NULL")
        .pluck(),
      replacing: db.sql.prepare<[string], string>("SELECT file_id FROM files WHERE replaces = ?").pluck(),
      all: db.sql.prepare<[], Row>("SELECT * FROM files ORDER BY created_at_ms DESC, file_id"),
      unregistered: db.sql.prepare<[], Row>(
        `SELECT * FROM files WHERE registered = ${UNREGISTERED} ORDER BY created_at_ms`,
      ),
      setRegistered: db.sql.prepare<[number, string]>("UPDATE files SET registered = ? WHERE file_id = ?"),
      setMembers: db.sql.prepare<[string, number, string]>(
        "UPDATE files SET shared_with = ?, version = ? WHERE file_id = ?",
      ),
      loseKey: db.sql.prepare<[FileAccess, Buffer, string]>("UPDATE files SET access = ?, key = ? WHERE file_id = ?"),
      giveKey: db.sql.prepare<[string, Buffer, Buffer, string]>(
        "UPDATE files SET access = 'granted', name = ?, key = ?, sha256 = ? WHERE file_id = ?",
      ),
      ownIds: db.sql.prepare<[], string>("SELECT file_id FROM files WHERE source_path IS NOT NULL").pluck(),
      removeOffersOf: db.sql.prepare<[string]>("DELETE FROM files WHERE owner_id = ? AND source_path IS NULL"),
      setUnregistered: db.sql.prepare<[string]>(`UPDATE files SET registered = ${UNREGISTERED} WHERE file_id = ?`),
      setAllUnregistered: db.sql.prepare<[]>(
        `UPDATE files SET registered = ${UNREGISTERED} WHERE source_path IS NOT NULL`,
      ),
      doubtGone: db.sql.prepare<[]>(
        `UPDATE files SET registered = ${UNREGISTERED} WHERE registered = ${REGISTERED_GONE}`,
      ),
    };
  }

  insert(record: Omit<FileRecord, "access">): void {
    const { offer, sharedWith, version, sourcePath, registered } = record;
    const { manifest, signature } = offer.signed;
    this.#statements.insert.run({
      file_id: manifest.fileId,
      owner_id: manifest.ownerId,
      name: offer.name,
      size_bytes: manifest.sizeBytes,
      chunk_bytes: manifest.chunkBytes,
      chunk_count: manifest.chunkCount,
      root: Buffer.from(manifest.root),
      created_at_ms: manifest.createdAtMs,
      signature: Buffer.from(signature),
      key: Buffer.from(offer.key),
      sha256: Buffer.from(offer.sha256),
      shared_with: JSON.stringify(sharedWith),
      version,
      source_path: sourcePath,
      registered: registered ? REGISTERED : UNREGISTERED,
      access: "granted",
      list_bytes: offer.folder?.listBytes ?? null,
      folder_files: offer.folder?.files ?? null,
      replaces: offer.replaces ?? null,
    });
  }

  /** What its share list says. */
  setMembers(fileId: FileId, members: readonly UserId[], version: number): void {
    this.#statements.setMembers.run(JSON.stringify(members), version, fileId);
  }

  /** Nothing of the file can be had or read any more. */
  loseKey(fileId: FileId, access: Exclude<FileAccess, "granted">): void {
    this.#statements.loseKey.run(access, NO_KEY, fileId);
  }

  /** Of a file that is known already, from somebody who has it. */
  giveKey({ signed, name, key, sha256 }: FileOffer): void {
    this.#statements.giveKey.run(name, Buffer.from(key), Buffer.from(sha256), signed.manifest.fileId);
  }

  get(fileId: string): FileRecord | null {
    const row = this.#statements.get.get(fileId);
    return row === undefined ? null : recordOf(row);
  }

  /** Whether another file has taken the place of this one. */
  isReplaced(fileId: FileId): boolean {
    return this.#statements.replacing.get(fileId) !== undefined;
  }

  /** Files of others that take the place of others. */
  replacements(): FileId[] {
    return this.#statements.replacements.all().map((text) => v.parse(FileIdSchema, text));
  }

  /** Newest first. */
  all(): FileRecord[] {
    return this.#statements.all.all().map(recordOf);
  }

  /** Our own files, in no order. */
  ownIds(): FileId[] {
    return this.#statements.ownIds.all().map((text) => v.parse(FileIdSchema, text));
  }

  /** Files that this person shared with us; their downloads go with them. */
  removeOffersOf(ownerId: UserId): void {
    this.#statements.removeOffersOf.run(ownerId);
  }

  /** Own files that the server does not know yet, or not as they are now. */
  unregistered(): FileRecord[] {
    return this.#statements.unregistered.all().map(recordOf);
  }

  /** `holder`: whether the server was told that we hold the file. */
  setRegistered(fileId: FileId, holder: boolean): void {
    this.#statements.setRegistered.run(holder ? REGISTERED : REGISTERED_GONE, fileId);
  }

  setUnregistered(fileId: FileId): void {
    this.#statements.setUnregistered.run(fileId);
  }

  /** The own ones: the server of now was told of none. */
  setAllUnregistered(): void {
    this.#statements.setAllUnregistered.run();
  }

  /** What the server was told to be gone may be back: it has to be told anew. */
  doubtGone(): void {
    this.#statements.doubtGone.run();
  }
}

/** Rows are decoded with the schema of the wire: ids are branded there and nowhere else. */
const recordOf = (row: Row): FileRecord => {
  const offer = v.parse(FileOfferSchema, {
    signed: {
      manifest: {
        fileId: row.file_id,
        ownerId: row.owner_id,
        sizeBytes: row.size_bytes,
        chunkBytes: row.chunk_bytes,
        chunkCount: row.chunk_count,
        root: toBase64Url(row.root),
        createdAtMs: row.created_at_ms,
      },
      signature: toBase64Url(row.signature),
    },
    name: row.name,
    key: toBase64Url(row.key),
    sha256: toBase64Url(row.sha256),
    ...(row.replaces === null ? {} : { replaces: row.replaces }),
    ...(row.list_bytes === null ? {} : { folder: { listBytes: row.list_bytes, files: row.folder_files } }),
  });
  const members = decodeJson(Members, utf8(row.shared_with));
  return {
    offer,
    sharedWith: members.ok ? members.value : [],
    version: row.version,
    sourcePath: row.source_path,
    registered: row.registered !== UNREGISTERED,
    access: row.access,
  };
};
