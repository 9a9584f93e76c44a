import { closeSync, fstatSync, readSync } from "node:fs";
import type { Disposable } from "#shared/base/disposable.ts";
import { CHUNKS_PAGE_BYTES, SALVAGE_ROW_BYTES_MAX } from "#shared/base/limits.ts";
import { openIfThere, WAL_FRAME_HEADER_BYTES, WAL_HEADER_BYTES } from "./wal-frames.ts";

/**
 * Reads rows out of a database that SQLite does not open any more, or not all of (https://sqlite.org/fileformat2.html).
 * It needs no header and no inner pages: every leaf of a table is recognised by itself, in the file and in its WAL. What
 * comes out may be old, deleted or wrong, so whoever takes it has to prove it.
 */
const PAGE_BYTES = CHUNKS_PAGE_BYTES;
const TABLE_LEAF = 0x0d;
const DATABASE_HEADER_BYTES = 100;
const POINTER_BYTES = 4;

type Value = number | string | Uint8Array | null;

/** One version of a page: in which file, and where. */
interface Place {
  readonly fd: number;
  readonly at: number;
}

export interface SalvagedRow {
  readonly id: number;
  /** Without the id, of which SQLite keeps a null. */
  readonly values: readonly Value[];
}

export class SalvagePages implements Disposable {
  readonly #fds: number[] = [];
  /** Versions of each page, the newest first. */
  readonly #versions = new Map<number, Place[]>();
  readonly #page = Buffer.alloc(PAGE_BYTES);
  readonly #overflow = Buffer.alloc(PAGE_BYTES);

  /** Either file may be missing. @throws the system's error when one cannot be read. */
  constructor(databasePath: string, walPath: string) {
    this.#add(walPath, (fd, bytes) => this.#findFrames(fd, bytes));
    this.#add(databasePath, (fd, bytes) => {
      for (let number = 1; number * PAGE_BYTES <= bytes; number += 1)
        this.#addVersion(number, { fd, at: (number - 1) * PAGE_BYTES });
    });
  }

  /** Versions of pages, each of which {@link rows} reads. */
  *places(): Generator<{ number: number; place: Place }> {
    for (const [number, places] of this.#versions) for (const place of places) yield { number, place };
  }

  /** The rows in one version of a page. Where overflow pages have several versions, a row comes once for the newest and once for the oldest. */
  *rows({ number, place }: { number: number; place: Place }): Generator<SalvagedRow> {
    const page = this.#page;
    if (!read(place, page)) return;
    const start = number === 1 ? DATABASE_HEADER_BYTES : 0;
    if (page[start] !== TABLE_LEAF) return;
    const cells = page.readUInt16BE(start + 3);
    for (let i = 0; i < cells; i += 1) {
      const pointer = start + 8 + 2 * i;
      if (pointer + 2 > PAGE_BYTES) return;
      const cell = cellAt(page, page.readUInt16BE(pointer));
      if (cell === null) continue;
      const local = Buffer.from(page.subarray(cell.bodyAt, cell.bodyAt + cell.localBytes));
      for (const age of cell.overflow === 0 ? (["newest"] as const) : (["newest", "oldest"] as const)) {
        const payload = cell.overflow === 0 ? local : this.#withOverflow(local, cell, age);
        const values = payload === null ? null : decodeRecord(payload);
        if (values !== null) yield { id: cell.id, values };
        if (age === "newest" && !this.#hasVersions(cell.overflow)) break;
      }
    }
  }

  dispose(): void {
    for (const fd of this.#fds) closeSync(fd);
    this.#fds.length = 0;
  }

  #add(path: string, find: (fd: number, bytes: number) => void): void {
    const fd = openIfThere(path);
    if (fd === null) return;
    this.#fds.push(fd);
    find(fd, fstatSync(fd).size);
  }

  /** Whatever a checksum says: what is in a frame is proven by whoever takes it. */
  #findFrames(fd: number, bytes: number): void {
    const frameBytes = WAL_FRAME_HEADER_BYTES + PAGE_BYTES;
    const header = Buffer.alloc(WAL_FRAME_HEADER_BYTES);
    const frames = Math.floor((bytes - WAL_HEADER_BYTES) / frameBytes);
    for (let i = frames - 1; i >= 0; i -= 1) {
      const at = WAL_HEADER_BYTES + i * frameBytes;
      if (read({ fd, at }, header)) this.#addVersion(header.readUInt32BE(0), { fd, at: at + header.length });
    }
  }

  #addVersion(number: number, place: Place): void {
    if (number === 0) return;
    const versions = this.#versions.get(number);
    if (versions === undefined) this.#versions.set(number, [place]);
    else versions.push(place);
  }

  #hasVersions(number: number): boolean {
    return (this.#versions.get(number)?.length ?? 0) > 1;
  }

  #withOverflow(
    local: Uint8Array,
    { payloadBytes, overflow }: { payloadBytes: number; overflow: number },
    age: "newest" | "oldest",
  ): Buffer | null {
    const payload = Buffer.alloc(payloadBytes);
    payload.set(local);
    let next = overflow;
    for (let at = local.length; at < payloadBytes; ) {
      const place = this.#versions.get(next)?.at(age === "newest" ? 0 : -1);
      if (place === undefined || !read(place, this.#overflow)) return null;
      const bytes = Math.min(PAGE_BYTES - POINTER_BYTES, payloadBytes - at);
      payload.set(this.#overflow.subarray(POINTER_BYTES, POINTER_BYTES + bytes), at);
      at += bytes;
      next = this.#overflow.readUInt32BE(0);
    }
    return payload;
  }
}

const read = ({ fd, at }: Place, target: Buffer): boolean =>
  readSync(fd, target, 0, target.length, at) === target.length;

/** How much of a row's payload lies in its leaf, the rest being in overflow pages. */
const localBytesOf = (payloadBytes: number): number => {
  const most = PAGE_BYTES - 35;
  if (payloadBytes <= most) return payloadBytes;
  const least = Math.floor(((PAGE_BYTES - 12) * 32) / 255) - 23;
  const fitting = least + ((payloadBytes - least) % (PAGE_BYTES - POINTER_BYTES));
  return fitting <= most ? fitting : least;
};

const cellAt = (
  page: Buffer,
  at: number,
): { id: number; payloadBytes: number; localBytes: number; bodyAt: number; overflow: number } | null => {
  const payload = varint(page, at);
  const id = payload === null ? null : varint(page, payload.end);
  if (payload === null || id === null || payload.value > SALVAGE_ROW_BYTES_MAX) return null;
  const localBytes = localBytesOf(payload.value);
  const end = id.end + localBytes;
  const overflows = localBytes < payload.value;
  if (end + (overflows ? POINTER_BYTES : 0) > PAGE_BYTES) return null;
  const overflow = overflows ? page.readUInt32BE(end) : 0;
  if (overflows && overflow === 0) return null;
  return { id: id.value, payloadBytes: payload.value, localBytes, bodyAt: id.end, overflow };
};

/** Up to 8 bytes, which is more than any number here needs; null where there is none. */
const varint = (bytes: Buffer, at: number): { value: number; end: number } | null => {
  let value = 0;
  for (let i = 0; i < 8; i += 1) {
    const byte = bytes[at + i];
    if (byte === undefined) return null;
    value = value * 128 + (byte & 127);
    if (byte < 128) return Number.isSafeInteger(value) ? { value, end: at + i + 1 } : null;
  }
  return null;
};

const INTEGER_BYTES = [0, 1, 2, 3, 4, 6];

/** Null when it is none. */
const decodeRecord = (payload: Buffer): Value[] | null => {
  const header = varint(payload, 0);
  if (header === null || header.value > payload.length) return null;
  const values: Value[] = [];
  let body = header.value;
  for (let at = header.end; at < header.value; ) {
    const type = varint(payload, at);
    if (type === null) return null;
    at = type.end;
    const value = decodeValue(payload, type.value, body);
    if (value === null) return null;
    values.push(value.value);
    body += value.bytes;
  }
  // The id comes first, as a null.
  return values[0] === null ? values.slice(1) : null;
};

const decodeValue = (payload: Buffer, type: number, at: number): { value: Value; bytes: number } | null => {
  if (type === 0) return { value: null, bytes: 0 };
  if (type === 8 || type === 9) return { value: type - 8, bytes: 0 };
  const bytes = type < 12 ? INTEGER_BYTES[type] : (type - 12 - (type % 2)) / 2;
  if (bytes === undefined || at + bytes > payload.length) return null;
  if (type < 12) return { value: payload.readIntBE(at, bytes), bytes };
  const slice = payload.subarray(at, at + bytes);
  return { value: type % 2 === 0 ? slice : slice.toString("utf8"), bytes };
};
