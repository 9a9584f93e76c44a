import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { FOLDER_DEPTH_MAX, FOLDER_ENTRIES_MAX } from "#shared/base/limits.ts";
import { foldName, isSafeEntryName, safeEntryName } from "../../src-main/transfer/file-name.ts";
import {
  decodeFolderList,
  encodeFolderList,
  type FolderEntry,
  FolderList,
  faultOf,
  sortKey,
} from "../../src-main/transfer/folder-list.ts";
import { counted } from "../support/counts.ts";

const numRuns = counted(300, 20_000);
const HASH = new Uint8Array(32).fill(9);
const file = (path: string, sizeBytes = 1): FolderEntry => ({ path, sizeBytes, sha256: HASH });
const emptyFolder = (path: string): FolderEntry => ({ path, sizeBytes: 0, sha256: null });
const inOrder = (entries: FolderEntry[]): FolderEntry[] =>
  entries.sort((a, b) => (sortKey(a.path) < sortKey(b.path) ? -1 : 1));

const name = fc
  .oneof(
    fc.constantFrom("a", "b", "A", ".git", "x y", "z.tar.gz"),
    fc.string({ unit: "grapheme", minLength: 1, maxLength: 8 }),
  )
  .map(safeEntryName);
const path = fc.array(name, { minLength: 1, maxLength: 4 }).map((names) => names.join("/"));
/** Lists that keep the rules: paths that would break one are left out. */
const entries = fc.array(fc.tuple(path, fc.nat(2 ** 40), fc.boolean()), { maxLength: 30 }).map((drafts) => {
  const kept: FolderEntry[] = [];
  for (const [entryPath, size, isFile] of drafts) {
    const next = inOrder([...kept, isFile ? file(entryPath, size) : emptyFolder(entryPath)]);
    if (faultOf(next) === null) kept.splice(0, kept.length, ...next);
  }
  return kept;
});
const sum = (list: readonly FolderEntry[]): number => list.reduce((bytes, { sizeBytes }) => bytes + sizeBytes, 0);

describe("the list of a folder", () => {
  test("comes back as it was", () => {
    fc.assert(
      fc.property(entries, (list) => {
        const decoded = decodeFolderList(encodeFolderList(list), sum(list));
        expect(decoded.ok && decoded.value.entries).toEqual(list);
      }),
      { numRuns },
    );
  });

  test("is refused, and never throws, when bytes of it were changed, cut or added; what is taken keeps the rules", () => {
    const change = fc.record({ at: fc.double({ min: 0, max: 1, noNaN: true }), byte: fc.nat(255), cut: fc.boolean() });
    fc.assert(
      fc.property(entries, fc.array(change, { minLength: 1, maxLength: 3 }), (list, changes) => {
        let bytes = encodeFolderList(list);
        for (const { at, byte, cut } of changes) {
          const place = Math.floor(at * bytes.length);
          if (cut) bytes = bytes.slice(0, place);
          else bytes[place] = byte;
        }
        const decoded = decodeFolderList(bytes, sum(list));
        if (!decoded.ok) expect(decoded.error.type).toBe("bad_folder");
        else {
          expect(faultOf(decoded.value.entries)).toBeNull();
          expect(decoded.value.contentBytes).toBe(sum(list));
        }
      }),
      { numRuns },
    );
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        expect(decodeFolderList(bytes, 0).ok).toBe(false);
      }),
      { numRuns },
    );
  });

  test.each([
    ["up and out", ["../x"]],
    ["up in between", ["a/../../x"]],
    ["absolute", ["/etc/passwd"]],
    ["a drive", ["C:/x"]],
    ["a share of Windows", ["\\\\host\\x"]],
    ["a backslash", ["a\\b"]],
    ["nothing", [""]],
    ["an empty name", ["a//b"]],
    ["a name at the end that is empty", ["a/"]],
    ["the folder itself", ["./a"]],
    ["a device of Windows", ["a/NUL.txt"]],
    ["a stream of Windows", ["a.txt:x"]],
    ["a trailing dot", ["a."]],
    ["a trailing space", ["a /b"]],
    ["an invisible character", ["a\u202eb"]],
    ["a NUL", ["a\0b"]],
    ["the same twice", ["a", "a"]],
    ["the same but for case", ["A", "a"]],
    ["folders that are the same but for case", ["A/x", "a/y"]],
    ["the same but for how it is composed", ["e\u0301", "\u00e9"]],
    ["a file that is a folder", ["a", "a/b"]],
    ["a file that is a folder but for case", ["A", "a/b"]],
    ["out of order", ["b", "a"]],
    ["too deep", [Array.from({ length: FOLDER_DEPTH_MAX + 1 }, () => "a").join("/")]],
    ["too long", [Array.from({ length: 60 }, () => "n".repeat(60)).join("/")]],
  ])("refuses %s", (_, paths) => {
    const list = paths.map((entryPath) => file(entryPath));
    expect(decodeFolderList(encodeFolderList(list), sum(list))).toMatchObject({
      ok: false,
      error: { type: "bad_folder" },
    });
  });

  test("refuses sizes that do not add up, and more entries than there may be", () => {
    expect(decodeFolderList(encodeFolderList([file("a", 5)]), 6).ok).toBe(false);
    const bytes = encodeFolderList([]);
    new DataView(bytes.buffer).setUint32(8, FOLDER_ENTRIES_MAX + 1);
    expect(decodeFolderList(bytes, 0).ok).toBe(false);
  });
});

describe("the parts of a folder", () => {
  test("cover every stretch of it once, in order", () => {
    fc.assert(
      fc.property(fc.array(fc.nat(20), { maxLength: 20 }), fc.nat(200), fc.nat(200), (sizes, a, b) => {
        const list = new FolderList(sizes.map((size, i) => file(`f${String(i).padStart(3, "0")}`, size)));
        const [start, end] = [Math.min(a, b), Math.max(a, b)];
        const covered: string[] = [];
        for (const { index, from, to, at } of list.parts(start, end)) {
          expect(at).toBe(list.offsetOf(index) + from);
          for (let i = from; i < to; i += 1) covered.push(`${index}:${i}`);
        }
        const all = sizes.flatMap((size, index) => Array.from({ length: size }, (_, i) => `${index}:${i}`));
        expect(covered).toEqual(all.slice(start, end));
      }),
      { numRuns },
    );
  });

  test("children of all folders together are all entries, each once", () => {
    fc.assert(
      fc.property(entries, (drafts) => {
        const list = new FolderList(drafts);
        const seen: number[] = [];
        const enter = (folder: string): void => {
          for (const child of list.children(folder) ?? []) {
            const at = folder === "" ? child.name : `${folder}/${child.name}`;
            if (child.kind === "file" || list.entries[child.first]?.path === at) seen.push(child.first);
            else enter(at);
            const inside = drafts.slice(child.first, child.first + child.entries);
            expect(inside.every((entry) => entry.path === at || entry.path.startsWith(`${at}/`))).toBe(true);
            expect(child.sizeBytes).toBe(sum(inside));
          }
        };
        enter("");
        expect(seen).toEqual(drafts.map((_, i) => i));
        expect(list.children("no such folder")).toBeNull();
      }),
      { numRuns },
    );
  });
});

test("the name of an entry is safe everywhere, keeps its leading dots, and stays as it is when made safe again", () => {
  fc.assert(
    fc.property(fc.string({ unit: "binary", maxLength: 300 }), (raw) => {
      const safe = safeEntryName(raw);
      expect(safeEntryName(safe)).toBe(safe);
      for (const name of [raw, safe, `${safe}.txt`]) expect(isSafeEntryName(name)).toBe(safeEntryName(name) === name);
      expect(safe).not.toMatch(/[<>:"/\\|?*]|[. ]$|^$|^ /u);
      expect(Buffer.byteLength(safe)).toBeLessThanOrEqual(230);
      expect(foldName(safe)).not.toBe("");
    }),
    { numRuns },
  );
  expect([".gitignore", "..", ".", "...", " .x", "..a"].map(safeEntryName)).toEqual([
    ".gitignore",
    "file",
    "file",
    "file",
    ".x",
    "..a",
  ]);
});
