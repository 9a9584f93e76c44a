import { closeSync, openSync, readSync } from "node:fs";

/** A file inside an asar archive. */
export interface AsarFile {
  readonly path: string;
  readonly sizeBytes: number;
  /** Kept beside the archive, because the operating system must open it. */
  readonly unpacked: boolean;
}

interface Entry {
  readonly files?: Record<string, Entry>;
  readonly size?: number;
  readonly unpacked?: boolean;
  readonly link?: string;
}

/**
 * Reads the table of contents of an asar archive: three little-endian lengths of Chromium's Pickle format, then the length of
 * the JSON and the JSON itself (https://github.com/electron/asar#format).
 */
export const listAsar = (archive: string): AsarFile[] => {
  const fd = openSync(archive, "r");
  try {
    const lengths = Buffer.alloc(16);
    readSync(fd, lengths, 0, 16, 0);
    const json = Buffer.alloc(lengths.readUInt32LE(12));
    readSync(fd, json, 0, json.length, 16);
    const files: AsarFile[] = [];
    collect(JSON.parse(json.toString("utf8")) as Entry, "", files);
    return files;
  } finally {
    closeSync(fd);
  }
};

const collect = (folder: Entry, prefix: string, files: AsarFile[]): void => {
  for (const [name, entry] of Object.entries(folder.files ?? {})) {
    const path = `${prefix}${name}`;
    if (entry.files !== undefined) collect(entry, `${path}/`, files);
    else files.push({ path, sizeBytes: entry.size ?? 0, unpacked: entry.unpacked ?? false });
  }
};
