import { posix, win32 } from "node:path";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { utf8 } from "#shared/base/bytes.ts";
import { FILE_NAME_BYTES_MAX } from "#shared/base/limits.ts";
import { foldName, safeFileName, withSuffix } from "../../src-main/transfer/file-name.ts";
import { counted } from "../support/counts.ts";

const STEMS = "con prn aux nul conin$ conout$ clock$ com1 com9 com0 com¹ lpt1 lpt9 lpt³".split(" ");
const ENDINGS = ["", ".txt", ".tar.gz", " .txt", ".", " ", "...", ":stream", "\u202e", "/x", "\\x"];
const CASES = [(s: string) => s, (s: string) => s.toUpperCase(), (s: string) => ` ${s}`];
const HOSTILE = [
  "",
  ".",
  "..",
  "...",
  " ",
  "/",
  "\\",
  "../../etc/passwd",
  "..\\..\\windows\\system32\\x.dll",
  "/etc/passwd",
  "C:\\x",
  "C:x",
  "\\\\server\\share\\x",
  "\\\\?\\C:\\x",
  "a\u0000b",
  "a\nb",
  "a\tb",
  "a\u001b[31mb",
  "photo\u202Egpj.exe",
  "\u2066x\u2069",
  "\u200bx",
  "\ufeffx",
  "x\ud800",
  "\udc00x",
  "file.txt::$DATA",
  "file.txt ",
  "file.txt.",
  ".bashrc",
  "..hidden",
  "-rf",
  "~",
  "$(rm -rf)",
  "%00",
  "a\u2028b",
  "\u00a0x\u3000",
  "e\u0301.txt",
  "ﬁle.txt",
  "Straße.TXT",
  `${"x".repeat(300)}.txt`,
  `${"ä".repeat(200)}.jpeg`,
  `${"👩‍👩‍👧".repeat(40)}.png`,
  `x.${"y".repeat(300)}`,
  `con${".".repeat(300)}txt`,
  `a${".".repeat(300)}.txt`,
  `${" ".repeat(300)}.txt`,
];
/** Every reserved stem in every disguise, and what attackers and clumsy programs send. */
const CORPUS = [
  ...STEMS.flatMap((stem) => ENDINGS.flatMap((end) => CASES.map((change) => change(stem) + end))),
  ...HOSTILE,
];
for (let code = 0; code < 160; code += 1) CORPUS.push(`a${String.fromCharCode(code)}b`);

const RESERVED = /^(con|prn|aux|nul|conin\$|conout\$|clock\$|com[0-9¹²³]|lpt[0-9¹²³])\s*(\..*)?$/i;

/** The rules that a name breaks; plain conditions, because they are asked a million times. */
const broken = (input: string): string[] => {
  const name = safeFileName(input);
  const rules: Record<string, boolean> = {
    "not empty": name !== "",
    "short enough": utf8(name).length <= FILE_NAME_BYTES_MAX,
    "no forbidden character": !/[<>:"/\\|?*]/.test(name),
    "nothing invisible": !/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/u.test(name),
    "no dot or space at the ends": !/^[. ]|[. ]$/.test(name),
    "not reserved": !RESERVED.test(name),
    "a fixed point": safeFileName(name) === name,
    "well formed": name.isWellFormed(),
    "inside its folder on POSIX": posix.dirname(posix.join("/d/down", name)) === "/d/down",
    "inside its folder on Windows": win32.dirname(win32.join("C:\\d", name)) === "C:\\d",
    "one part on both": posix.basename(name) === name && win32.basename(name) === name,
    "safe with a number": [2, 9999].every((number) => {
      const suffixed = withSuffix(name, number);
      return suffixed !== name && safeFileName(suffixed) === suffixed;
    }),
  };
  return Object.keys(rules).filter((rule) => rules[rule] !== true);
};

const check = (input: string): void => {
  const rules = broken(input);
  if (rules.length > 0) expect.fail(`${JSON.stringify(input)}: ${rules.join(", ")}`);
};

describe("a file name from somebody else", () => {
  test(`is safe: corpus of ${CORPUS.length}`, () => {
    expect(CORPUS.length).toBeGreaterThanOrEqual(600);
    for (const input of CORPUS) check(input);
  });

  test("is safe: 100,000 random ones", { timeout: 120_000 }, () => {
    const nasty = fc.constantFrom(
      ..."./\\: \u202e\u200b\u0000\ud800\u0301ß",
      ...STEMS,
      ".txt",
      "x".repeat(100),
      "👩‍👩‍👧",
    );
    const unit = fc.oneof(
      { weight: 3, arbitrary: nasty },
      { weight: 2, arbitrary: fc.string({ unit: "binary", maxLength: 6 }) },
    );
    fc.assert(
      fc.property(fc.array(unit, { maxLength: 12 }), (parts) => check(parts.join(""))),
      { numRuns: counted(20_000, 100_000) },
    );
  });

  test("stays as it is when it is harmless", () => {
    for (const name of [
      "report.pdf",
      "Grüße aus Köln.jpeg",
      "日本語.txt",
      "a.b.c",
      "no extension",
      "console.log",
      "com10.txt",
    ])
      expect(safeFileName(name)).toBe(name);
  });

  test("keeps its extension when it is cut, and shows what it is", () => {
    expect(safeFileName(`${"x".repeat(300)}.jpeg`)).toBe(`${"x".repeat(FILE_NAME_BYTES_MAX - 5)}.jpeg`);
    expect(safeFileName("photo\u202Egpj.exe")).toBe("photogpj.exe");
    expect(safeFileName("aux.h")).toBe("_aux.h");
    expect(safeFileName("../../x")).toBe("_.._x");
  });

  test("gets a number in front of the extension, and folds like a file system that ignores case", () => {
    expect(withSuffix("report.pdf", 1)).toBe("report.pdf");
    expect(withSuffix("report.pdf", 2)).toBe("report (2).pdf");
    expect(withSuffix("Makefile", 3)).toBe("Makefile (3)");
    for (const [a, b] of [
      ["PHOTO.JPG", "photo.jpg"],
      ["e\u0301", "\u00e9"],
      ["STRASSE", "straße"],
      ["ΣΑΣ", "σας"],
    ] as const)
      expect(foldName(a)).toBe(foldName(b));
    expect(foldName("a")).not.toBe(foldName("b"));
  });
});
