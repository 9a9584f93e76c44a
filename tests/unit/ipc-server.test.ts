import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { IPC_CALLS_PENDING_MAX } from "#shared/base/limits.ts";
import { ok, type Result } from "#shared/base/result.ts";
import { type CommandName, commands } from "#shared/ipc/contract.ts";
import type { Handlers } from "../../src-main/ipc/handlers.ts";
import { createIpcServer } from "../../src-main/ipc/server.ts";
import { createFakeApp, FAKE_USER, fakeHostHandlers, recordingLog } from "../support/fake-app.ts";

const createServer = (overrides: Parameters<typeof createFakeApp>[0] = {}) => {
  const app = createFakeApp(overrides);
  const log = recordingLog();
  const handlers: Handlers = { ...app.handlers, ...fakeHostHandlers };
  return { app, log, server: createIpcServer(handlers, log) };
};
const typeOf = (result: Result<unknown>): string => (result.ok ? "ok" : result.error.type);

describe("the contract server", () => {
  test("hands a valid input to its handler, defaults filled in", async () => {
    const { app, server } = createServer();
    expect(await server.call("messages.list", { chatId: FAKE_USER })).toEqual(ok([]));
    expect(app.calls).toEqual([{ name: "messages.list", input: { chatId: FAKE_USER, limit: 50 } }]);
  });

  test.each([
    undefined,
    null,
    7,
    {},
    [],
    "",
    "nope",
    "messages.SEND",
    "__proto__",
    "constructor",
    "toString",
    "hasOwnProperty",
  ])("refuses the command %j", async (name) => {
    const { app, server } = createServer();
    expect(typeOf(await server.call(name, {}))).toBe("unknown_command");
    expect(app.calls).toEqual([]);
  });

  test("names the field that is wrong, and never repeats its value", async () => {
    const { app, server } = createServer();
    const secret = "the text of a message";
    const result = await server.call("messages.send", { chatId: secret, text: "hi" });
    expect(result).toEqual({
      ok: false,
      error: { type: "bad_input", message: "messages.send: chatId: must be a chat id" },
    });
    const missing = await server.call("messages.send", { chatId: FAKE_USER, text: 5, more: secret });
    expect(typeOf(missing)).toBe("bad_input");
    expect(JSON.stringify([result, missing])).not.toContain(secret);
    expect(app.calls).toEqual([]);
  });

  test("turns an exception into `internal` and logs no text of it", async () => {
    const { log, server } = createServer({
      "messages.send": () => {
        throw Object.assign(new Error("secret text in /home/alice/letter.txt"), { code: "EIO" });
      },
      "files.list": () => Promise.reject(new TypeError("secret text")),
    });
    for (const call of [
      server.call("messages.send", { chatId: FAKE_USER, text: "x" }),
      server.call("files.list", {}),
    ]) {
      expect(await call).toMatchObject({ ok: false, error: { type: "internal" } });
    }
    expect(log.lines).toHaveLength(2);
    expect(log.lines[0]?.fields).toMatchObject({ command: "messages.send", error: "Error", code: "EIO" });
    expect(JSON.stringify(log.lines)).not.toMatch(/secret|letter/);
  });

  test("answers busy above the limit and recovers", async () => {
    const gate = Promise.withResolvers<void>();
    const { server } = createServer({ "files.list": () => gate.promise.then(() => ok([])) });
    const waiting = Array.from({ length: IPC_CALLS_PENDING_MAX }, () => server.call("files.list", {}));
    expect(server.pending).toBe(IPC_CALLS_PENDING_MAX);
    expect(typeOf(await server.call("chats.list", {}))).toBe("busy");
    gate.resolve();
    expect((await Promise.all(waiting)).every((result) => result.ok)).toBe(true);
    expect(server.pending).toBe(0);
    expect(typeOf(await server.call("chats.list", {}))).toBe("ok");
  });
});

describe("1,000 fuzzed bodies", () => {
  const names = Object.keys(commands) as CommandName[];

  test.each(names)("%s: never throws, and no handler sees an input that its schema refuses", async (name) => {
    const { app, server } = createServer();
    const keys = ["chatId", "userId", "fileId", "text", "path", "limit", "beforeId", "peerId", "name", "__proto__"];
    const body = fc.oneof(
      fc.anything({ withNullPrototype: true, withBigInt: true, withDate: true, withMap: true }),
      fc.dictionary(fc.constantFrom(...keys), fc.oneof(fc.constant(FAKE_USER), fc.anything(), fc.string())),
      fc.json().map((text): unknown => JSON.parse(text)),
    );
    await fc.assert(
      fc.asyncProperty(body, async (input) => {
        const before = app.calls.length;
        const result = await server.call(name, input);
        expect(["ok", "bad_input", "not_found"]).toContain(typeOf(result));
        if (typeOf(result) === "bad_input") expect(app.calls).toHaveLength(before);
      }),
      { numRuns: 1000 },
    );
    for (const { input } of app.calls) expect(Object.getPrototypeOf(input)).toBe(Object.prototype);
    expect(server.pending).toBe(0);
  });
});
