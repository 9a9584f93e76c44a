import { appendFileSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { assert } from "#shared/base/assert.ts";
import { buildPreload } from "./preload.ts";

/**
 * What a disk may hold after a power cut: all that was forced to it, and of the rest any part, in any order and torn at
 * sectors. Made from the log of `traced-calls.c`. Names are as strict as POSIX: they last once their folder was forced,
 * before that any number of the changes of a folder, in their order, may have happened.
 */
export type Call =
  | { readonly kind: "say"; readonly text: string }
  | { readonly kind: "create"; readonly path: string; readonly file: number }
  | {
      readonly kind: "write";
      readonly path: string;
      readonly file: number;
      readonly place: number;
      readonly data: Buffer;
    }
  | { readonly kind: "resize"; readonly path: string; readonly file: number; readonly bytes: number }
  /** A file becomes at least so large. */
  | { readonly kind: "grow"; readonly path: string; readonly file: number; readonly bytes: number }
  | { readonly kind: "sync"; readonly path: string; readonly file: number; readonly number: number }
  | { readonly kind: "synced"; readonly path: string; readonly number: number }
  | { readonly kind: "rename" | "link"; readonly path: string; readonly to: string }
  | { readonly kind: "unlink"; readonly path: string };

/** Why no process can be traced here; null when it can, with the library at `into`. */
export const buildTracer = (into: string): string | null => buildPreload("traced-calls.c", into);

const HEAD_BYTES = 29;

export const readTrace = (path: string): Call[] => {
  const log = readFileSync(path);
  const calls: Call[] = [];
  // The process may have been killed in the middle of a record.
  for (let at = 0; at + HEAD_BYTES <= log.length; ) {
    const kind = String.fromCharCode(log[at] ?? 0);
    const pathEnd = at + HEAD_BYTES + log.readUInt32LE(at + 1);
    const file = Number(log.readBigUInt64LE(at + 5));
    const place = Number(log.readBigUInt64LE(at + 13));
    const end = pathEnd + Number(log.readBigUInt64LE(at + 21));
    if (end > log.length) return calls;
    const name = log.toString("utf8", at + HEAD_BYTES, pathEnd);
    const call = callOf(kind, { path: name, file, place, data: log.subarray(pathEnd, end) });
    if (call !== null) calls.push(call);
    at = end;
  }
  return calls;
};

/** Notes what another process has heard from the traced one, as if that had said it now. */
export const noteInTrace = (path: string, text: string): void => {
  const head = Buffer.alloc(HEAD_BYTES);
  head.write("S");
  head.writeBigUInt64LE(BigInt(Buffer.byteLength(text)), 21);
  appendFileSync(path, Buffer.concat([head, Buffer.from(text)]));
};

const callOf = (kind: string, on: { path: string; file: number; place: number; data: Buffer }): Call | null => {
  const { path, file, place, data } = on;
  // What SQLite's processes share in memory; made anew after a crash.
  if (path.endsWith("-shm")) return null;
  switch (kind) {
    case "S":
      return { kind: "say", text: data.toString() };
    case "C":
      return { kind: "create", path, file };
    case "W":
      return { kind: "write", path, file, place, data };
    case "T":
      return { kind: "resize", path, file, bytes: place };
    case "G":
      return { kind: "grow", path, file, bytes: place };
    case "B":
      return { kind: "sync", path, file, number: place };
    case "E":
      return { kind: "synced", path, number: place };
    case "R":
      return { kind: "rename", path, to: data.toString() };
    case "L":
      return { kind: "link", path, to: data.toString() };
    case "U":
      return { kind: "unlink", path };
    default:
      throw new Error(`a call of the kind ${kind} is not known to the model of the disk`);
  }
};

type Change = Extract<Call, { kind: "write" | "resize" | "grow" }>;
type Renaming = Extract<Call, { kind: "rename" | "link" | "unlink" | "create" }>;

interface Inode {
  readonly forced: Content;
  /** With its place in the log. */
  readonly loose: { readonly at: number; readonly change: Change }[];
}

/** How much of what was not forced outlives the cut. */
export type Luck = "nothing" | "everything" | "some" | "torn";

const SECTOR_BYTES = 512;

export class Disk {
  readonly #under: string;
  /** As running processes see them. */
  readonly #names = new Map<string, Inode>();
  readonly #forcedNames = new Map<string, Inode>();
  /** By folder. */
  readonly #looseNames = new Map<
    string,
    { readonly at: number; readonly call: Renaming; readonly inode: Inode | null }[]
  >();
  readonly #syncs = new Map<number, { readonly at: number; readonly path: string; readonly inode: Inode | null }>();
  #at = 0;

  /** `under`: the folder that is traced. `before`: files that it holds, for good. */
  constructor(under: string, before: ReadonlyMap<string, Buffer> = new Map()) {
    this.#under = under;
    for (const [path, bytes] of before) {
      const inode = { forced: new Content(bytes), loose: [] };
      this.#names.set(path, inode);
      this.#forcedNames.set(path, inode);
    }
  }

  apply(call: Call): void {
    this.#at += 1;
    switch (call.kind) {
      case "say":
        return;
      case "create":
        if (!this.#names.has(call.path)) this.#name(call, { forced: new Content(), loose: [] });
        return;
      case "write":
      case "resize":
      case "grow":
        // It may have been removed while it was open.
        this.#names.get(call.path)?.loose.push({ at: this.#at, change: call });
        return;
      case "rename":
      case "link":
      case "unlink":
        this.#name(call, this.#names.get(call.path) ?? null);
        return;
      case "sync":
        this.#syncs.set(call.number, { at: this.#at, path: call.path, inode: this.#names.get(call.path) ?? null });
        return;
      case "synced":
        this.#force(call.number);
    }
  }

  /** Whether all that was written to the file up to this call, counted from 1, outlives a cut now. */
  isForced(path: string, upTo: number): boolean {
    return !(this.#names.get(path)?.loose ?? []).some(({ at }) => at <= upTo);
  }

  #name(call: Renaming, inode: Inode | null): void {
    rename(this.#names, call, inode);
    const folders = new Set([dirname(call.path), dirname("to" in call ? call.to : call.path)]);
    assert(folders.size === 1, "names move within a folder only");
    for (const folder of folders)
      this.#looseNames.set(folder, [...(this.#looseNames.get(folder) ?? []), { at: this.#at, call, inode }]);
  }

  #force(number: number): void {
    const sync = this.#syncs.get(number);
    assert(sync !== undefined, "a sync ends that began");
    const { at: upTo, path, inode } = sync;
    if (inode !== null) {
      const forced = inode.loose.filter(({ at }) => at <= upTo);
      inode.loose.splice(0, inode.loose.length, ...inode.loose.filter(({ at }) => at > upTo));
      for (const { change } of forced) inode.forced.change(change);
      return;
    }
    const names = this.#looseNames.get(path) ?? [];
    for (const { at, call, inode: named } of names) if (at <= upTo) rename(this.#forcedNames, call, named);
    this.#looseNames.set(
      path,
      names.filter(({ at }) => at > upTo),
    );
  }

  /** Writes what the disk may hold if the power is cut now. `random` gives numbers from 0 to 1. */
  cutInto(folder: string, luck: Luck, random: () => number): void {
    const names = new Map(this.#forcedNames);
    for (const loose of this.#looseNames.values()) {
      const happened = luck === "everything" ? loose.length : luck === "nothing" ? 0 : random() * (loose.length + 1);
      for (const { call, inode } of loose.slice(0, happened)) rename(names, call, inode);
    }
    mkdirSync(folder, { recursive: true });
    for (const [path, inode] of names) {
      const into = join(folder, relative(this.#under, path));
      mkdirSync(dirname(into), { recursive: true });
      writeFileSync(into, afterCut(inode, luck, random));
    }
  }
}

const rename = (names: Map<string, Inode>, call: Renaming, inode: Inode | null): void => {
  if (call.kind === "create") {
    if (inode !== null) names.set(call.path, inode);
    return;
  }
  if (call.kind !== "unlink" && inode !== null) names.set(call.to, inode);
  if (call.kind !== "link") names.delete(call.path);
};

const afterCut = ({ forced, loose }: Inode, luck: Luck, random: () => number): Buffer => {
  const content = new Content(forced.bytes);
  for (const { change } of loose) {
    if (luck === "nothing" || (luck === "some" && random() < 0.5)) continue;
    if (luck !== "torn" || change.kind !== "write") {
      content.change(change);
      continue;
    }
    const { place, data } = change;
    for (let from = 0; from < data.length; ) {
      const end = Math.min(data.length, from + SECTOR_BYTES - ((place + from) % SECTOR_BYTES));
      if (random() < 0.5) content.change({ ...change, place: place + from, data: data.subarray(from, end) });
      from = end;
    }
  }
  return content.bytes;
};

class Content {
  #room: Buffer;
  #length: number;

  constructor(bytes: Buffer = Buffer.alloc(0)) {
    this.#room = Buffer.from(bytes);
    this.#length = bytes.length;
  }

  get bytes(): Buffer {
    return this.#room.subarray(0, this.#length);
  }

  change(change: Change): void {
    switch (change.kind) {
      case "resize":
        this.#resize(change.bytes);
        return;
      case "grow":
        this.#resize(Math.max(this.#length, change.bytes));
        return;
      case "write":
        this.#resize(Math.max(this.#length, change.place + change.data.length));
        change.data.copy(this.#room, change.place);
    }
  }

  #resize(bytes: number): void {
    if (bytes > this.#room.length) {
      const room = Buffer.alloc(Math.max(bytes, 2 * this.#room.length));
      this.bytes.copy(room);
      this.#room = room;
    }
    if (bytes < this.#length) this.#room.fill(0, bytes, this.#length);
    this.#length = bytes;
  }
}
