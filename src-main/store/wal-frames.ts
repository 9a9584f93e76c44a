import { closeSync, fstatSync, openSync, readSync } from "node:fs";

/** The format of a write-ahead log: https://sqlite.org/fileformat2.html#walformat */
export const WAL_HEADER_BYTES = 32;
export const WAL_FRAME_HEADER_BYTES = 24;
const LITTLE_ENDIAN_MAGIC = 0x377f0682;

/** A descriptor to read from; null for a file that is not there. @throws the system's error for any other reason. */
export const openIfThere = (path: string): number | null => {
  try {
    return openSync(path, "r");
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return null;
    throw error;
  }
};

/**
 * Number of the last frame that ends a transaction of the log's present run, whatever its checksums say; 0 for none. SQLite
 * passes over what follows a damaged frame without a word, so this tells that there was more.
 */
export const lastCommitIn = (walPath: string, pageBytes: number): number => {
  const fd = openIfThere(walPath);
  if (fd === null) return 0;
  try {
    const frames = Math.floor((fstatSync(fd).size - WAL_HEADER_BYTES) / (WAL_FRAME_HEADER_BYTES + pageBytes));
    const header = Buffer.alloc(WAL_HEADER_BYTES);
    const frame = Buffer.alloc(WAL_FRAME_HEADER_BYTES);
    const readFrame = (index: number): boolean => {
      const at = WAL_HEADER_BYTES + index * (WAL_FRAME_HEADER_BYTES + pageBytes);
      return readSync(fd, frame, 0, frame.length, at) === frame.length;
    };
    if (frames < 1 || readSync(fd, header, 0, header.length, 0) !== header.length || !readFrame(0)) return 0;
    // The frames of one run have the salts of the header; when that is damaged, the first of them tells.
    const salts = Buffer.from(isSound(header) ? header.subarray(16, 24) : frame.subarray(8, 16));
    for (let index = frames - 1; index >= 0; index -= 1)
      if (readFrame(index) && frame.subarray(8, 16).equals(salts) && frame.readUInt32BE(4) !== 0) return index + 1;
    return 0;
  } finally {
    closeSync(fd);
  }
};

const isSound = (header: Buffer): boolean => {
  const isLittle = header.readUInt32BE(0) === LITTLE_ENDIAN_MAGIC;
  let [a, b] = [0, 0];
  for (let at = 0; at < 24; at += 8) {
    a = (a + word(header, at, isLittle) + b) >>> 0;
    b = (b + word(header, at + 4, isLittle) + a) >>> 0;
  }
  return a === header.readUInt32BE(24) && b === header.readUInt32BE(28);
};

const word = (bytes: Buffer, at: number, isLittle: boolean): number =>
  isLittle ? bytes.readUInt32LE(at) : bytes.readUInt32BE(at);
