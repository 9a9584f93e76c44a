import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { request } from "node:http";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { WebSocket } from "ws";
import { IPC_MESSAGE_BYTES_MAX, IPC_SEND_QUEUED_BYTES_MAX } from "#shared/base/limits.ts";
import { ok } from "#shared/base/result.ts";
import { systemRandom } from "../../src-main/env.ts";
import { type Bridge, startBridge } from "../../src-main/host/headless/bridge.ts";
import { createIpcServer } from "../../src-main/ipc/server.ts";
import { createFakeApp, type FakeApp, fakeHostHandlers, recordingLog, transferView } from "../support/fake-app.ts";

let dir: string;
let app: FakeApp;
let bridge: Bridge;
let port: number;
const log = recordingLog();

const start = async (overrides: Parameters<typeof createFakeApp>[0] = {}): Promise<void> => {
  app = createFakeApp(overrides);
  const server = createIpcServer({ ...app.handlers, ...fakeHostHandlers }, log);
  const rendererDir = join(dir, "renderer");
  const uploadsDir = join(dir, "uploads");
  bridge = await startBridge({
    port: 0,
    rendererDir,
    uploadsDir,
    server,
    events: app.events,
    random: systemRandom,
    log,
  });
  port = Number(new URL(bridge.url).port);
};

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "weir-bridge-"));
  await mkdir(join(dir, "renderer", "assets"), { recursive: true });
  await writeFile(join(dir, "renderer", "index.html"), "<!doctype html><title>Weir</title>");
  await writeFile(join(dir, "renderer", "assets", "index-AbCdEf12.js"), "1;");
  await writeFile(join(dir, "secret.txt"), "SECRET");
  await mkdir(join(dir, "renderer-evil"));
  await writeFile(join(dir, "renderer-evil", "a.txt"), "SECRET");
  await symlink(join(dir, "secret.txt"), join(dir, "renderer", "link.txt"));
  await symlink(join(dir, "renderer-evil"), join(dir, "renderer", "linked"));
  await start();
});
afterEach(async () => {
  await bridge.stop();
  await rm(dir, { recursive: true, force: true });
});

interface Answer {
  status: number;
  headers: Record<string, string | string[] | undefined>;
  body: string;
}
/** node:http instead of fetch, which normalises the path and owns the Host header. */
const get = (path: string, headers: Record<string, string> = {}, method = "GET", body?: Buffer): Promise<Answer> =>
  new Promise((resolve, reject) => {
    const sent = request({ host: "127.0.0.1", port, path, method, headers }, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (piece: string) => {
        text += piece;
      });
      response.on("end", () => resolve({ status: response.statusCode ?? 0, headers: response.headers, body: text }));
    });
    sent.on("error", reject);
    sent.end(body);
  });

const open = (query: string, headers: Record<string, string> = {}): Promise<WebSocket> =>
  new Promise((resolve, reject) => {
    const socket = new WebSocket(`ws://127.0.0.1:${port}/${query}`, { headers });
    socket.on("open", () => resolve(socket));
    socket.on("error", reject);
  });
const openIpc = () => open(`ipc?token=${bridge.token}`);
const nextMessage = async (socket: WebSocket): Promise<unknown> => {
  const [data] = await once(socket, "message");
  return JSON.parse(String(data));
};
const ask = (socket: WebSocket, text: string | Buffer): Promise<unknown> => {
  const answer = nextMessage(socket);
  socket.send(text);
  return answer;
};

describe("static files", () => {
  test("the page, without a token, under the strict policy", async () => {
    const page = await get("/");
    expect(page).toMatchObject({ status: 200, body: "<!doctype html><title>Weir</title>" });
    expect(page.headers).toMatchObject({
      "content-type": "text/html; charset=utf-8",
      "x-content-type-options": "nosniff",
      "referrer-policy": "no-referrer",
      "cross-origin-opener-policy": "same-origin",
      "cross-origin-resource-policy": "same-origin",
      "cache-control": "no-cache",
    });
    const csp = String(page.headers["content-security-policy"]);
    expect(csp).toContain("default-src 'none'");
    expect(csp).toContain("frame-ancestors 'none'");
    expect(csp).not.toMatch(/unsafe|https?:|\*/);
    expect(page.body).not.toContain(bridge.token);
  });

  test("hashed assets are kept for ever, with their type", async () => {
    const asset = await get("/assets/index-AbCdEf12.js");
    expect(asset.headers["cache-control"]).toContain("immutable");
    expect(asset.headers["content-type"]).toBe("text/javascript; charset=utf-8");
    expect(await get("/assets/index-AbCdEf12.js", {}, "HEAD")).toMatchObject({ status: 200, body: "" });
  });

  test.each(["POST", "PUT", "DELETE", "OPTIONS"])("%s is refused", async (method) => {
    expect((await get("/", {}, method)).status).toBe(405);
  });

  test("200 traversal paths read nothing outside the root", async () => {
    const ups = [
      "../",
      "..%2f",
      "..%5c",
      "%2e%2e/",
      "%2e%2e%2f",
      "..\\",
      "....//",
      ".%2e/",
      "..%c0%af",
      "..%252f",
      "..;/",
    ];
    const targets = ["secret.txt", "renderer-evil/a.txt", "etc/passwd"];
    const paths = ["", "assets/", "//", "%00/", "linked/"].flatMap((prefix) =>
      ups.flatMap((up) => targets.flatMap((target) => [1, 4].map((depth) => `/${prefix}${up.repeat(depth)}${target}`))),
    );
    paths.push(
      "/link.txt",
      "/linked/a.txt",
      "//etc/passwd",
      "/%2fetc%2fpasswd",
      "/.git/config",
      "/a%00.txt",
      "/%",
      "/%ff",
    );
    expect(paths.length).toBeGreaterThan(200);
    for (const path of paths) {
      const answer = await get(path);
      expect([400, 404], path).toContain(answer.status);
      expect(answer.body, path).not.toMatch(/SECRET|root:/);
    }
  });

  test("says how to build when there is nothing to show", async () => {
    await rm(join(dir, "renderer"), { recursive: true });
    expect(await get("/")).toMatchObject({ status: 503, body: expect.stringContaining("npm run build") });
  });

  test("a foreign Host or Origin gets nothing, not even the page", async () => {
    expect((await get("/", { host: `evil.example:${port}` })).status).toBe(403);
    expect((await get("/", { origin: "https://evil.example" })).status).toBe(403);
    expect((await get("/", { host: `localhost:${port}`, origin: `http://localhost:${port}` })).status).toBe(200);
  });

  test("it listens on the loopback address only", async () => {
    const { networkInterfaces } = await import("node:os");
    const other = Object.values(networkInterfaces())
      .flat()
      .find((each) => each?.family === "IPv4" && !each.internal);
    if (other === undefined) return;
    const socket = connect({ host: other.address, port });
    const [event] = await Promise.race([
      once(socket, "error").then(() => ["refused"]),
      once(socket, "connect").then(() => ["connected"]),
    ]);
    socket.destroy();
    expect(event).toBe("refused");
  });
});

describe("the IPC socket", () => {
  test.each([
    ["no token", () => "ipc", {}, 401],
    ["a wrong token", () => `ipc?token=${"A".repeat(43)}`, {}, 401],
    ["another path", () => `other?token=${bridge.token}`, {}, 404],
    ["a foreign Origin", () => `ipc?token=${bridge.token}`, { origin: "https://evil.example" }, 403],
    ["an opaque Origin", () => `ipc?token=${bridge.token}`, { origin: "null" }, 403],
    ["a foreign Host", () => `ipc?token=${bridge.token}`, { host: "evil.example" }, 403],
  ])("%s is refused", async (_what, query, headers, status) => {
    await expect(open(query(), headers)).rejects.toThrow(`Unexpected server response: ${status}`);
  });

  test("the client built into Node and a page's Origin are let in", async () => {
    const socket = new globalThis.WebSocket(`ws://127.0.0.1:${port}/ipc?token=${bridge.token}`);
    await new Promise((resolve, reject) => {
      socket.onopen = resolve;
      socket.onerror = reject;
    });
    socket.close();
    (await open(`ipc?token=${bridge.token}`, { origin: `http://127.0.0.1:${port}` })).close();
  });

  test("a call is answered with its id, errors as data", async () => {
    const socket = await openIpc();
    expect(await ask(socket, '{"id":1,"call":"chats.list","input":{}}')).toEqual({ id: 1, ok: true, value: [] });
    expect(await ask(socket, '{"id":"b","call":"nope"}')).toMatchObject({
      id: "b",
      ok: false,
      error: { type: "unknown_command", message: expect.any(String) },
    });
    expect(await ask(socket, '{"id":3,"call":"messages.send","input":{"chatId":1}}')).toMatchObject({
      id: 3,
      error: { type: "bad_input" },
    });
    socket.close();
  });

  test("malformed frames are answered and the connection lives on", async () => {
    const socket = await openIpc();
    for (const text of ["not json", "[]", "null", "{}", '{"id":1}', '{"call":"chats.list"}']) {
      expect(await ask(socket, text)).toMatchObject({ ok: false, error: { type: "bad_frame" } });
    }
    expect(await ask(socket, Buffer.from([1, 2, 3]))).toMatchObject({ id: null, error: { type: "bad_frame" } });
    expect(await ask(socket, '{"id":1,"call":"chats.list"}')).toMatchObject({ id: 1, ok: true });
    socket.close();
  });

  test("a frame above the limit closes the connection, and only that one", async () => {
    const [socket, other] = [await openIpc(), await openIpc()];
    socket.send("x".repeat(IPC_MESSAGE_BYTES_MAX + 1));
    const [code] = await once(socket, "close");
    expect(code).toBe(1009);
    expect(await ask(other, '{"id":1,"call":"chats.list"}')).toMatchObject({ ok: true });
    other.close();
  });

  test("events are pushed to every socket until it closes", async () => {
    const [a, b] = [await openIpc(), await openIpc()];
    const both = Promise.all([nextMessage(a), nextMessage(b)]);
    app.emitter.emit({ event: "transfer.changed", payload: transferView() });
    expect(await both).toEqual([0, 1].map(() => ({ event: "transfer.changed", payload: transferView() })));
    a.close();
    b.close();
    await expect.poll(() => app.emitter.listenerCount).toBe(0);
  });

  test("a socket that does not read is cut off instead of filling the memory", async () => {
    const socket = await openIpc();
    socket.pause();
    const payload = transferView({ name: "x".repeat(1024 * 1024) });
    const before = process.memoryUsage().rss;
    for (let i = 0; i < 500 && app.emitter.listenerCount > 0; i++) {
      app.emitter.emit({ event: "transfer.changed", payload });
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(app.emitter.listenerCount).toBe(0);
    expect(process.memoryUsage().rss - before).toBeLessThan(8 * IPC_SEND_QUEUED_BYTES_MAX);
    expect(log.lines.some((line) => line.message.includes("does not read"))).toBe(true);
    socket.terminate();
  });

  test("a huge answer is replaced by an error", async () => {
    await bridge.stop();
    await start({ "chats.list": () => ok("x".repeat(IPC_SEND_QUEUED_BYTES_MAX + 1)) });
    const socket = await openIpc();
    expect(await ask(socket, '{"id":9,"call":"chats.list"}')).toMatchObject({
      id: 9,
      error: { type: "answer_too_large" },
    });
    socket.close();
  });
});

describe("uploads", () => {
  const upload = (name: string, body: Buffer, headers: Record<string, string> = {}) =>
    get(
      `/upload?name=${encodeURIComponent(name)}`,
      { authorization: `Bearer ${bridge.token}`, ...headers },
      "POST",
      body,
    );

  test("8 MiB arrive as they were, under the name they had", async () => {
    const body = Buffer.from(systemRandom.bytes(8 * 1024 * 1024));
    const answer = await upload("Grüße.bin", body);
    expect(answer.status).toBe(201);
    const { path } = JSON.parse(answer.body);
    expect(path).toMatch(/uploads\/[A-Za-z0-9_-]{22}\/Grüße\.bin$/);
    expect((await readFile(path)).equals(body)).toBe(true);
  });

  test.each([
    ["without a token", { authorization: "" }, 401, "wrong_token"],
    ["with a wrong token", { authorization: "Bearer AAAA" }, 401, "wrong_token"],
    ["from a foreign page", { origin: "https://evil.example" }, 403, "forbidden"],
  ])("%s: refused, nothing written", async (_what, headers, status, type) => {
    const answer = await upload("a", Buffer.from("x"), headers);
    expect(answer.status).toBe(status);
    expect(JSON.parse(answer.body)).toMatchObject({ ok: false, error: { type } });
    expect(await readdir(dir)).not.toContain("uploads");
  });

  test("a path in the name stays inside; no name is refused; GET is refused", async () => {
    const { path } = JSON.parse((await upload("../../../../tmp/x/evil.sh", Buffer.from("x"))).body);
    expect(path.startsWith(join(dir, "uploads"))).toBe(true);
    expect((await upload("", Buffer.from("x"))).status).toBe(400);
    expect((await get("/upload?name=a", { authorization: `Bearer ${bridge.token}` })).status).toBe(405);
  });

  test("a connection that breaks in the middle leaves no file", async () => {
    const head = `POST /upload?name=a HTTP/1.1\r\nhost: 127.0.0.1:${port}\r\nauthorization: Bearer ${bridge.token}\r\ncontent-length: 100000\r\n\r\n`;
    const socket = connect({ host: "127.0.0.1", port });
    socket.write(head + "x".repeat(1000));
    await expect.poll(() => readdir(join(dir, "uploads")).catch(() => [])).toHaveLength(1);
    socket.destroy();
    await expect.poll(() => readdir(join(dir, "uploads"))).toEqual([]);
  });
});

describe("the process", () => {
  const entry = fileURLToPath(new URL("../support/headless-fake.ts", import.meta.url));
  const run = (args: string[], env: NodeJS.ProcessEnv = {}) => {
    const child = spawn(process.execPath, [entry, ...args], { env: { ...process.env, ...env } });
    const stderr: string[] = [];
    child.stderr.setEncoding("utf8").on("data", (text: string) => stderr.push(text));
    const firstLine = once(createInterface({ input: child.stdout }), "line").then(([line]) => String(line));
    const exit = once(child, "exit");
    return { child, firstLine, exit, stderr: () => stderr.join("") };
  };

  test("prints the ready line first, answers, and ends with 0 on SIGTERM", async () => {
    const { child, firstLine, exit } = run(["--data", join(dir, "profile")]);
    const ready = JSON.parse(await firstLine);
    expect(ready).toEqual({
      ready: true,
      url: expect.stringMatching(/^http:\/\/127\.0\.0\.1:\d+\/$/),
      token: expect.stringMatching(/^[A-Za-z0-9_-]{43}$/),
      userId: app.userId,
      serverUrl: "ws://127.0.0.1:1",
    });
    const socket = new WebSocket(`${ready.url.replace("http", "ws")}ipc?token=${ready.token}`);
    await once(socket, "open");
    expect(await ask(socket, '{"id":1,"call":"host.info"}')).toMatchObject({
      value: { kind: "headless", dataDirectory: join(dir, "profile") },
    });
    expect(await ask(socket, '{"id":2,"call":"host.pickFiles"}')).toMatchObject({
      error: { type: "not_available_here" },
    });
    const closed = once(socket, "close");
    child.kill("SIGTERM");
    expect(await exit).toEqual([0, null]);
    await closed;
  });

  test("a second signal ends it at once", async () => {
    const { child, firstLine, exit } = run(["--data", join(dir, "profile")], { WEIR_FAKE_STOP: "never" });
    const { url } = JSON.parse(await firstLine);
    child.kill("SIGINT");
    // The first signal has been handled when the bridge is gone.
    const answers = () =>
      fetch(url).then(
        () => true,
        () => false,
      );
    await expect.poll(answers).toBe(false);
    child.kill("SIGINT");
    expect(await exit).toEqual([1, null]);
  });

  test("bad arguments: usage and 2", async () => {
    const { exit, stderr } = run(["--port", "x"]);
    expect(await exit).toEqual([2, null]);
    expect(stderr()).toMatch(/--data DIR is missing[\s\S]*Usage:/);
  });

  test("a key file that others can read: words and 1", async () => {
    await mkdir(join(dir, "profile"));
    await writeFile(join(dir, "profile", "key.json"), "{}", { mode: 0o644 });
    const { exit, stderr } = run(["--data", join(dir, "profile")]);
    expect(await exit).toEqual([1, null]);
    expect(stderr()).toContain("chmod 600");
  });
});
