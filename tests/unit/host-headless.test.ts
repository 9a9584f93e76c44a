import {
  chmod,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  realpath,
  rm,
  stat,
  symlink,
  utimes,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { FILE_NAME_BYTES_MAX } from "#shared/base/limits.ts";
import { systemRandom } from "../../src-main/env.ts";
import { removeAbandonedUploads } from "../../src-main/host/headless/abandoned-uploads.ts";
import { parseArguments } from "../../src-main/host/headless/arguments.ts";
import { decodeCall, encodeAnswer } from "../../src-main/host/headless/frames.ts";
import { Guard } from "../../src-main/host/headless/guard.ts";
import { createHeadlessVault } from "../../src-main/host/headless/key-vault.ts";
import { receiveUpload, uploadName } from "../../src-main/host/headless/upload.ts";
import { VaultError } from "../../src-main/host/key-file.ts";
import { recordingLog } from "../support/fake-app.ts";

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "weir-headless-"));
});
afterEach(() => rm(dir, { recursive: true, force: true }));

describe("arguments", () => {
  test("all of them", () => {
    const argv = ["--data", "/d", "--server", "ws://h:1", "--name", " Bob ", "--port", "8080", "--downloads", "/x"];
    expect(parseArguments(argv)).toEqual({
      ok: true,
      value: { dataDir: "/d", server: "ws://h:1", name: "Bob", port: 8080, downloads: "/x" },
    });
    expect(parseArguments(["--data", "/d"])).toMatchObject({ ok: true, value: { port: 0, server: undefined } });
  });

  test.each([
    [[]],
    [["--data", ""]],
    [["--data"]],
    [["--data", "/d", "--port", "70000"]],
    [["--data", "/d", "--port", "-1"]],
    [["--data", "/d", "--port", "x"]],
    [["--data", "/d", "--server", "http://x"]],
    [["--data", "/d", "--name", "   "]],
    [["--data", "/d", "--name", "x".repeat(65)]],
    [["--data", "/d", "--nope"]],
    [["--data", "/d", "more"]],
  ])("refuses %j", (argv) => {
    expect(parseArguments(argv)).toMatchObject({ ok: false, error: { type: "usage" } });
  });
});

describe("frames", () => {
  test("a call, with and without input", () => {
    expect(decodeCall('{"id":1,"call":"chats.list","input":{"a":1}}')).toEqual({
      ok: true,
      value: { id: 1, call: "chats.list", input: { a: 1 } },
    });
    expect(decodeCall('{"id":"x","call":"chats.list"}')).toMatchObject({ ok: true, value: { id: "x", input: {} } });
  });

  test("what cannot be read is answered with its id when that is readable", () => {
    expect(decodeCall("not json")).toMatchObject({ ok: false, error: { id: null } });
    expect(decodeCall('{"id":7}')).toMatchObject({ ok: false, error: { id: 7 } });
    expect(decodeCall('{"id":7,"call":"a","other":1}')).toMatchObject({ ok: false, error: { id: 7 } });
    expect(decodeCall('{"id":{},"call":"a"}')).toMatchObject({ ok: false, error: { id: null } });
    expect(decodeCall("null")).toMatchObject({ ok: false, error: { id: null } });
  });

  test("any text gives a call or a `bad_frame`, never an exception", () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.json()), (text) => {
        const frame = decodeCall(text);
        if (frame.ok) expect(typeof frame.value.call).toBe("string");
        else expect(frame.error.error.type).toBe("bad_frame");
        expect(() => encodeAnswer(null, { ok: true, value: text })).not.toThrow();
      }),
      { numRuns: 2000 },
    );
  });
});

describe("the guard", () => {
  const guard = new Guard("secret-token", 4000);

  test.each([
    ["127.0.0.1:4000", true],
    ["localhost:4000", true],
    ["LOCALHOST:4000", true],
    ["127.0.0.1", false],
    ["127.0.0.1:4001", false],
    ["evil.example:4000", false],
    ["127.0.0.1:4000.evil.example", false],
    ["[::1]:4000", false],
    ["", false],
    [undefined, false],
  ])("Host %s: %s", (host, allowed) => {
    expect(guard.hostAllowed(host === undefined ? {} : { host })).toBe(allowed);
  });

  test.each([
    [undefined, true],
    ["http://127.0.0.1:4000", true],
    ["http://localhost:4000", true],
    ["https://127.0.0.1:4000", false],
    ["http://127.0.0.1:4001", false],
    ["http://evil.example", false],
    ["http://127.0.0.1:4000.evil.example", false],
    ["null", false],
    ["", false],
    ["app://weir", false],
  ])("Origin %s: %s", (origin, allowed) => {
    expect(guard.originAllowed(origin === undefined ? {} : { origin })).toBe(allowed);
  });

  test("only the whole token", () => {
    expect(guard.tokenAllowed("secret-token")).toBe(true);
    for (const wrong of [null, "", "secret-toke", "secret-token2", "SECRET-TOKEN"]) {
      expect(guard.tokenAllowed(wrong)).toBe(false);
    }
    expect(guard.bearerAllowed({ authorization: "Bearer secret-token" })).toBe(true);
    for (const authorization of ["secret-token", "Basic secret-token", "Bearer ", "Bearer secret-token x"]) {
      expect(guard.bearerAllowed({ authorization })).toBe(false);
    }
    expect(guard.bearerAllowed({})).toBe(false);
  });
});

describe("the key vault", () => {
  const vault = (passphrase?: string) => createHeadlessVault({ dataDir: dir, passphrase, random: systemRandom });
  const keyPath = () => join(dir, "key.json");
  const refused = (load: Promise<unknown>) =>
    load.then(
      () => "loaded",
      (error: unknown) => (error instanceof VaultError ? error.message : Promise.reject(error)),
    );

  test("makes a key once, in a private file in a private folder", async () => {
    const first = await vault().load();
    expect(first).toMatchObject({ protection: "file" });
    expect(first.key).toHaveLength(32);
    expect((await vault().load()).key).toEqual(first.key);
    expect((await stat(keyPath())).mode & 0o777).toBe(0o600);
    expect((await stat(dir)).mode & 0o777).toBe(0o700);
    expect(await readdir(dir)).toEqual(["key.json"]);
  });

  test("two starts at the same moment agree on one key", async () => {
    const loaded = await Promise.all(Array.from({ length: 8 }, () => vault().load()));
    expect(new Set(loaded.map(({ key }) => Buffer.from(key).toString("hex"))).size).toBe(1);
  });

  test("a passphrase wraps the key; without it or with a wrong one nothing opens", async () => {
    const { key, protection } = await vault("correct horse").load();
    expect(protection).toBe("passphrase");
    const file = await readFile(keyPath(), "utf8");
    expect(file).not.toContain(Buffer.from(key).toString("base64url"));
    expect((await vault("correct horse").load()).key).toEqual(key);
    expect(await refused(vault().load())).toMatch(/WEIR_PASSPHRASE/);
    expect(await refused(vault("wrong").load())).toMatch(/wrong/);
    expect(await readFile(keyPath(), "utf8")).toBe(file);
  });

  test("a passphrase given later protects an open key from then on", async () => {
    const { key } = await vault().load();
    expect(await vault("later").load()).toEqual({ key, protection: "passphrase" });
    expect(await readFile(keyPath(), "utf8")).not.toContain(Buffer.from(key).toString("base64url"));
    expect(await refused(vault().load())).toMatch(/WEIR_PASSPHRASE/);
    expect((await stat(keyPath())).mode & 0o777).toBe(0o600);
  });

  test("refuses a key file that others can read, says how to mend it, and leaves it", async () => {
    const { key } = await vault().load();
    await chmod(keyPath(), 0o640);
    expect(await refused(vault().load())).toMatch(/chmod 600/);
    await chmod(keyPath(), 0o600);
    expect((await vault().load()).key).toEqual(key);
  });

  test("never makes a new key for a profile that has one: damaged, missing, of another host", async () => {
    await writeFile(keyPath(), "{", { mode: 0o600 });
    expect(await refused(vault().load())).toMatch(/damaged/);
    expect(await readFile(keyPath(), "utf8")).toBe("{");
    await writeFile(keyPath(), JSON.stringify({ version: 1, kind: "keystore", sealed: "AAAA" }), { mode: 0o600 });
    expect(await refused(vault().load())).toMatch(/keystore/);
    await rm(keyPath());
    await writeFile(join(dir, "app.db"), "x");
    expect(await refused(vault().load())).toMatch(/missing/);
    expect(await readdir(dir)).toEqual(["app.db"]);
  });
});

describe("uploads", () => {
  const deps = () => ({ random: systemRandom, log: recordingLog() });

  test("a stream becomes a private file with its name", async () => {
    const directory = join(dir, "uploads");
    const body = Readable.from([Buffer.from("hello "), Buffer.from("world")]);
    const result = await receiveUpload(body, { directory, name: "a/b/../letter.txt", sizeBytes: 11 }, deps());
    expect(result).toMatchObject({ ok: true });
    const path = result.ok ? result.value.path : "";
    expect(path.startsWith(directory)).toBe(true);
    expect(path.endsWith("/letter.txt")).toBe(true);
    expect(await readFile(path, "utf8")).toBe("hello world");
    expect((await stat(path)).mode & 0o777).toBe(0o600);
  });

  test.each([
    ["cut short", 20, /whole/, "upload_failed"],
    ["larger than the disk", 2 ** 52, /space/, "disk_full"],
  ])("%s: a typed error, and nothing is left", async (_what, sizeBytes, message, type) => {
    const directory = join(dir, "uploads");
    const result = await receiveUpload(Readable.from([Buffer.from("x")]), { directory, name: "a", sizeBytes }, deps());
    expect(result).toMatchObject({ ok: false, error: { type, message: expect.stringMatching(message) } });
    expect(await readdir(directory)).toEqual([]);
  });

  test("a sender that breaks off leaves nothing", async () => {
    const directory = join(dir, "uploads");
    const body = Readable.from(
      (async function* () {
        yield Buffer.alloc(100_000);
        throw new Error("aborted");
      })(),
    );
    const result = await receiveUpload(body, { directory, name: "a", sizeBytes: null }, deps());
    expect(result).toMatchObject({ ok: false, error: { type: "upload_failed" } });
    expect(await readdir(directory)).toEqual([]);
  });

  test.each([
    ["", "file"],
    ["..", "file"],
    ["/", "file"],
    ["../../etc/passwd", "passwd"],
    ["C:\\Windows\\system32\\x.dll", "x.dll"],
    ["NUL.txt", "_NUL.txt"],
    ["Grüße 👋.pdf", "Grüße 👋.pdf"],
  ])("the name %j becomes %j", (raw, safe) => {
    expect(uploadName(raw)).toBe(safe);
  });

  test("any name becomes one safe segment of bounded length, and stays as it is the second time", () => {
    const hostile = fc.string({ unit: fc.constantFrom(...`\\/.: \u202e\0abcCONnul*?"<>|`), maxLength: 40 });
    fc.assert(
      fc.property(fc.oneof(fc.string({ unit: "binary", maxLength: 600 }), hostile), (raw) => {
        const name = uploadName(raw);
        expect(name).not.toMatch(/[/\\<>:"|?*\p{Cc}\p{Cf}]|^\s|[.\s]$/u);
        expect(name).not.toMatch(/^(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$)/i);
        expect(name.length).toBeGreaterThan(0);
        expect(Buffer.byteLength(name)).toBeLessThanOrEqual(FILE_NAME_BYTES_MAX);
        expect(uploadName(name)).toBe(name);
      }),
      { numRuns: 5000 },
    );
  });
});

describe("abandoned uploads", () => {
  const DAY_MS = 24 * 60 * 60 * 1000;
  const idOf = (letter: string): string => letter.repeat(22);
  const upload = async (letter: string, ageMs: number): Promise<string> => {
    const folder = join(dir, idOf(letter));
    await mkdir(folder);
    await writeFile(join(folder, "a.bin"), "x");
    await age(join(folder, "a.bin"), ageMs);
    await age(folder, ageMs);
    return join(await realpath(folder), "a.bin");
  };
  const age = (path: string, ageMs: number) => utimes(path, new Date(NOW - ageMs), new Date(NOW - ageMs));
  const NOW = Date.now();
  const sweep = (shared: string[] = []) => removeAbandonedUploads(dir, shared, { now: NOW, log: recordingLog() });

  test("go after a day; what is shared, younger, or not an upload stays", async () => {
    await upload("a", 2 * DAY_MS);
    const shared = await upload("b", 900 * DAY_MS);
    await upload("c", DAY_MS - 60_000);
    // Its folder is old, but somebody has just written to it.
    await age(join(dir, idOf("c")), 2 * DAY_MS);
    await mkdir(join(dir, "letters"));
    await writeFile(join(dir, "letters", "a.bin"), "x");
    await writeFile(join(dir, idOf("d")), "x");
    await symlink(join(dir, "letters"), join(dir, idOf("e")));
    for (const name of ["letters/a.bin", "letters", idOf("d")]) await age(join(dir, name), 9 * DAY_MS);
    expect(await sweep([shared])).toBe(1);
    expect((await readdir(dir)).sort()).toEqual([idOf("b"), idOf("c"), idOf("d"), idOf("e"), "letters"]);
    expect(await readFile(join(dir, "letters", "a.bin"), "utf8")).toBe("x");
    expect(await readFile(shared, "utf8")).toBe("x");
  });

  test("of a cut-off upload go too, and no folder of uploads is no error", async () => {
    await mkdir(join(dir, idOf("a")));
    await age(join(dir, idOf("a")), 2 * DAY_MS);
    expect(await sweep()).toBe(1);
    expect(await readdir(dir)).toEqual([]);
    const log = recordingLog();
    expect(await removeAbandonedUploads(join(dir, "none"), [], { now: NOW, log })).toBe(0);
    expect(log.lines).toEqual([]);
  });
});
