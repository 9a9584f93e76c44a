import { utf8 } from "#shared/base/bytes.ts";
import { FILE_NAME_BYTES_MAX } from "#shared/base/limits.ts";

/**
 * Names come from other people. `safeFileName` makes one that is a plain file in its folder on Linux, macOS and Windows alike,
 * shows what it is (no invisible or direction-changing characters), and is a fixed point: applying it twice changes nothing.
 *
 * Sources: Microsoft "Naming Files, Paths, and Namespaces" (reserved stems and characters, trailing dots and spaces),
 * Unicode TR36 (bidirectional controls), POSIX (slash and NUL).
 */
const FALLBACK = "file";
/** Characters that Windows forbids, path separators, and the stream separator ":". */
const FORBIDDEN = /[<>:"/\\|?*]/gu;
/** Control, format (bidi, zero width), surrogate, private use and unassigned characters; line and paragraph separators. */
const INVISIBLE = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}]/gu;
/** Spaces of every width look alike; one kind is enough. */
const SPACES = /\p{Zs}+/gu;
/** Reserved on Windows with any extension; the superscript digits count too. */
const RESERVED_STEM = /^(?:con|prn|aux|nul|conin\$|conout\$|clock\$|com[0-9¹²³]|lpt[0-9¹²³])$/iu;
/** Longer ones are not extensions but text after a dot. */
const EXTENSION_BYTES_MAX = 32;

export const safeFileName = (name: string): string => {
  // A leading dot hides a file; trailing dots and spaces vanish on Windows.
  const trimmed = trimEnds(readable(name));
  return cutKeepingExtension(escapeReserved(trimmed === "" ? FALLBACK : trimmed), FILE_NAME_BYTES_MAX);
};

/**
 * The same for what lies in a shared folder, where a leading dot belongs to the name (".gitignore"). "." and ".." have
 * trailing dots, so they cannot come out of it.
 */
export const safeEntryName = (name: string): string => {
  const trimmed = readable(name)
    .replace(/^ +/u, "")
    .replace(/[. ]+$/u, "");
  return cutKeepingExtension(escapeReserved(trimmed === "" ? FALLBACK : trimmed), FILE_NAME_BYTES_MAX);
};

/** Whether `safeEntryName` leaves it as it is; quick for names of the common kind, because a folder has 100,000 of them. */
export const isSafeEntryName = (name: string): boolean =>
  (name.length <= FILE_NAME_BYTES_MAX && PLAIN.test(name) && escapeReserved(name) === name) ||
  safeEntryName(name) === name;

/** ASCII words with one dot, hyphen or space between them. */
const PLAIN = /^[A-Za-z0-9_]+(?:[-. ][A-Za-z0-9_]+)*$/u;
const ASCII = /^[ -~]*$/u;

const readable = (name: string): string =>
  name.normalize("NFC").replace(INVISIBLE, "").replace(FORBIDDEN, "_").replace(SPACES, " ").normalize("NFC");

const trimEnds = (text: string): string => text.replace(/^[. ]+/u, "").replace(/[. ]+$/u, "");

const escapeReserved = (name: string): string => {
  const dot = name.indexOf(".");
  const stem = (dot === -1 ? name : name.slice(0, dot)).trimEnd();
  return RESERVED_STEM.test(stem) ? `_${name}` : name;
};

/** The part before the last dot, and the rest with the dot; an extension that is too long is none. */
const splitExtension = (name: string): { stem: string; extension: string } => {
  const dot = name.lastIndexOf(".");
  if (dot <= 0 || byteLength(name.slice(dot)) > EXTENSION_BYTES_MAX) return { stem: name, extension: "" };
  return { stem: name.slice(0, dot), extension: name.slice(dot) };
};

const cutKeepingExtension = (name: string, bytesMax: number): string => {
  if (byteLength(name) <= bytesMax) return name;
  const { stem, extension } = splitExtension(name);
  return trimEnds(cutAtCodePoint(stem, bytesMax - byteLength(extension))) + extension;
};

/** The longest start of `text` that is at most `bytesMax` bytes of UTF-8 and ends between two code points. */
const cutAtCodePoint = (text: string, bytesMax: number): string => {
  if (byteLength(text) <= bytesMax) return text;
  let bytes = 0;
  let end = 0;
  for (const point of text) {
    bytes += byteLength(point);
    if (bytes > bytesMax) break;
    end += point.length;
  }
  return text.slice(0, end);
};

const byteLength = (text: string): number => utf8(text).length;

/** "report.pdf" -> "report (2).pdf"; still within the limit, because room was kept or is made. */
export const withSuffix = (name: string, number: number): string => {
  if (number < 2) return name;
  const suffix = ` (${number})`;
  const { stem, extension } = splitExtension(name);
  const room = FILE_NAME_BYTES_MAX - byteLength(extension) - byteLength(suffix);
  return `${trimEnds(cutAtCodePoint(stem, room))}${suffix}${extension}`;
};

/** Names with equal folds are one file on Windows and macOS. */
export const foldName = (name: string): string =>
  ASCII.test(name) ? name.toLowerCase() : name.normalize("NFC").toUpperCase().toLowerCase().normalize("NFC");

/** The temporary name of a download; hidden, and the same after every restart. */
export const partName = (fileId: string): string => `.weir-${fileId}.part`;

/** The opposite of {@link partName}; null for every other name. */
export const fileIdOfPart = (name: string): string | null => /^\.weir-(.+)\.part$/.exec(name)?.[1] ?? null;
