import { closeSync, openSync, readFileSync, readSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { join } from "node:path";

/**
 * Looks for planted secrets in whatever a program leaves behind: files, packets, the memory of a process. Every secret is
 * looked for in all the forms in which a careless program would let it through.
 */

const BASE64_OFFSETS = [0, 1, 2];
/** Shorter forms would be met by chance. */
const FORM_BYTES_MIN = 8;

const base64Of = (secret: Buffer, skip: number, alphabet: "base64" | "base64url"): string => {
  // Whole groups of three only: what stands before and after the secret changes the rest.
  const end = skip + Math.floor((secret.length - skip) / 3) * 3;
  return secret.subarray(skip, end).toString(alphabet);
};

const utf16Of = (text: Buffer, order: "le" | "be"): Buffer => {
  const wide = Buffer.from(text.toString("latin1"), "utf16le");
  return order === "le" ? wide : wide.swap16();
};

/** Raw, hexadecimal in both cases, both alphabets of base64 from each of three offsets; all of them also as UTF-16. */
export const formsOf = (secret: Buffer): Map<string, Buffer> => {
  const texts = new Map<string, Buffer>([
    ["raw", secret],
    ["hex", Buffer.from(secret.toString("hex"))],
    ["HEX", Buffer.from(secret.toString("hex").toUpperCase())],
  ]);
  for (const alphabet of ["base64", "base64url"] as const)
    for (const skip of BASE64_OFFSETS)
      texts.set(`${alphabet} from ${skip}`, Buffer.from(base64Of(secret, skip, alphabet)));
  const forms = new Map<string, Buffer>();
  for (const [name, text] of texts) {
    if (text.length < FORM_BYTES_MIN) continue;
    forms.set(name, text);
    for (const order of ["le", "be"] as const) forms.set(`${name}, UTF-16${order}`, utf16Of(text, order));
  }
  return forms;
};

interface Needle {
  readonly secret: string;
  readonly form: string;
  readonly bytes: Buffer;
  /** Where in it the word begins that leads here. */
  readonly offset: number;
}

const WORD_BYTES = 4;
/** How many bits of a word are told apart before a needle is compared as a whole. */
const TABLE_BITS = 20;
const PIECE_BYTES = 8 * 1024 * 1024;
/** Knuth's multiplicative hash. */
const slotOf = (word: number): number => Math.imul(word, 0x9e3779b1) >>> (32 - TABLE_BITS);

/**
 * Reads word by word instead of byte by byte, because there are gigabytes to read: wherever a needle lies, one of the words
 * that begin at its first four bytes is a whole one of the haystack.
 */
export class Needles {
  readonly #bySlot = new Map<number, Needle[]>();
  readonly #slots = new Uint8Array(2 ** TABLE_BITS);
  #longest = 0;

  constructor(secrets: ReadonlyMap<string, Uint8Array>) {
    for (const [secret, bytes] of secrets)
      for (const [form, text] of formsOf(Buffer.from(bytes)))
        for (let offset = 0; offset < WORD_BYTES; offset++) this.#add({ secret, form, bytes: text, offset });
  }

  #add(needle: Needle): void {
    const slot = slotOf(needle.bytes.readInt32LE(needle.offset));
    this.#slots[slot] = 1;
    this.#bySlot.set(slot, [...(this.#bySlot.get(slot) ?? []), needle]);
    this.#longest = Math.max(this.#longest, needle.bytes.length);
  }

  /** "secret (form)" of everything in these pieces of one whole; also of what lies across two of them. */
  find(pieces: Iterable<Buffer>): Set<string> {
    const found = new Set<string>();
    let rest: Buffer = Buffer.alloc(0);
    for (const piece of pieces) {
      const whole = rest.length === 0 ? piece : Buffer.concat([rest, piece]);
      this.#search(whole, found);
      rest = Buffer.from(whole.subarray(Math.max(0, whole.length - this.#longest + 1)));
    }
    return found;
  }

  #search(bytes: Buffer, found: Set<string>): void {
    const aligned = bytes.byteOffset % WORD_BYTES === 0 ? bytes : Buffer.from(new Uint8Array(bytes).buffer);
    const words = new Int32Array(aligned.buffer, aligned.byteOffset, Math.floor(aligned.length / WORD_BYTES));
    const slots = this.#slots;
    for (let index = 0; index < words.length; index++) {
      const slot = Math.imul(words[index] as number, 0x9e3779b1) >>> (32 - TABLE_BITS);
      if (slots[slot] === 0) continue;
      for (const needle of this.#bySlot.get(slot) ?? []) {
        const start = index * WORD_BYTES - needle.offset;
        const end = start + needle.bytes.length;
        const isWhole = start >= 0 && end <= aligned.length;
        if (isWhole && needle.bytes.compare(aligned, start, end) === 0) found.add(`${needle.secret} (${needle.form})`);
      }
    }
  }

  inFile(path: string): Set<string> {
    const file = openSync(path, "r");
    try {
      return this.find(piecesOf(file));
    } finally {
      closeSync(file);
    }
  }

  async inFolder(dir: string): Promise<Set<string>> {
    const found = new Set<string>();
    for (const entry of await readdir(dir, { recursive: true, withFileTypes: true }))
      if (entry.isFile()) for (const hit of this.inFile(join(entry.parentPath, entry.name))) found.add(hit);
    return found;
  }

  /**
   * All the memory of a process of this user. Linux only. Left out are pages that are the same as a file on the disk:
   * programs and libraries.
   */
  inMemory(pid: number): { found: Set<string>; bytes: number } {
    const found = new Set<string>();
    let bytes = 0;
    const memory = openSync(`/proc/${pid}/mem`, "r");
    try {
      for (const { start, end, resident } of regionsOf(pid)) {
        bytes += resident;
        for (const hit of this.find(piecesOf(memory, start, end))) found.add(hit);
      }
    } finally {
      closeSync(memory);
    }
    return { found, bytes };
  }

  /** The same of a process that stands still meanwhile, so that nothing moves from what is not read yet to what is. */
  inFrozenMemory(pid: number): { found: Set<string>; bytes: number } {
    process.kill(pid, "SIGSTOP");
    try {
      return this.inMemory(pid);
    } finally {
      process.kill(pid, "SIGCONT");
    }
  }
}

/** From `start` to `end`, or to where there is no more to read. */
function* piecesOf(file: number, start = 0, end = Number.POSITIVE_INFINITY): Iterable<Buffer> {
  for (let at = start; at < end; ) {
    const piece = Buffer.allocUnsafe(Math.min(PIECE_BYTES, end - at));
    const count = readOrNothing(file, piece, at);
    if (count === 0) return;
    yield piece.subarray(0, count);
    at += count;
  }
}

/** Device memory and pages beyond the end of a mapped file are in the list of regions and cannot be read. */
const readOrNothing = (file: number, into: Buffer, at: number): number => {
  try {
    return readSync(file, into, 0, into.length, at);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "EIO" || code === "EFAULT") return 0;
    throw error;
  }
};

interface Region {
  readonly start: number;
  readonly end: number;
  readonly isWanted: boolean;
  /** Bytes of it that have ever been written or read. */
  resident: number;
}

/** What `/proc/PID/smaps` (proc_pid_smaps(5)) says can be read, and is in use. */
const regionsOf = (pid: number): Region[] => {
  const regions: Region[] = [];
  for (const line of readFileSync(`/proc/${pid}/smaps`, "utf8").split("\n")) {
    const [, start = "", end = "", readable, writable, path = ""] =
      /^([0-9a-f]+)-([0-9a-f]+) (.)(.)\S+ \S+ \S+ \S+ *(.*)$/.exec(line) ?? [];
    const last = regions.at(-1);
    if (end !== "") {
      const isOfFile = path.startsWith("/") && writable !== "w";
      const isWanted = readable === "r" && !isOfFile && path !== "[vvar]" && path !== "[vsyscall]";
      regions.push({ start: Number.parseInt(start, 16), end: Number.parseInt(end, 16), isWanted, resident: 0 });
    } else if (last !== undefined) last.resident += 1024 * Number(/^Rss: +(\d+) kB$/.exec(line)?.[1] ?? 0);
  }
  return regions.filter(({ isWanted, resident }) => isWanted && resident > 0);
};

/** A process and all that it started. */
export const withChildren = (pid: number): number[] => {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim();
  return [
    pid,
    ...children
      .split(" ")
      .filter((child) => child !== "")
      .flatMap((child) => withChildren(Number(child))),
  ];
};
