import { createHash } from "node:crypto";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { follow } from "../../scripts/demo.ts";
import { pair, startHeadless, startServer } from "../../scripts/headless-process.ts";
import { createRecordingProxy } from "../support/recording-proxy.ts";

/** The forms in which a careless program would let a secret through. */
const formsOf = (secret: Buffer): Buffer[] => {
  const base64 = secret.toString("base64");
  return [
    secret,
    Buffer.from(secret.toString("latin1"), "utf16le"),
    Buffer.from(secret.toString("hex")),
    Buffer.from(secret.toString("hex").toUpperCase()),
    // Inside a longer text base64 may start at any of three offsets: the middle is the same in each.
    ...[0, 1, 2].map((skip) => Buffer.from(secret.subarray(skip).toString("base64").slice(0, 20))),
    ...[0, 1, 2].map((skip) => Buffer.from(secret.subarray(skip).toString("base64url").slice(0, 20))),
    Buffer.from(base64),
  ].filter((form) => form.length >= 8);
};

const readTree = async (dir: string): Promise<Buffer> => {
  const parts: Buffer[] = [];
  for (const entry of await readdir(dir, { recursive: true, withFileTypes: true }))
    if (entry.isFile()) parts.push(await readFile(join(entry.parentPath, entry.name)));
  return Buffer.concat(parts);
};

test("the server's database, log and traffic hold nothing that was said, named or sent", {
  timeout: 90_000,
}, async () => {
  const dir = await mkdtemp(join(tmpdir(), "weir-canary-"));
  const server = await startServer(join(dir, "server"));
  try {
    await using proxy = await createRecordingProxy(server.ready.url);
    const open = async (name: string) => {
      await mkdir(join(dir, name, "downloads"), { recursive: true });
      return startHeadless({
        dataDir: join(dir, name, "data"),
        server: proxy.url,
        name: `CanaryName-${name}`,
        downloads: join(dir, name, "downloads"),
      });
    };
    const alice = await open("alice");
    let bob = await open("bob");
    try {
      await pair(alice, bob, "code");
      // Only over the server's relay, so that the server carries everything that there is.
      const overRelay = async () => {
        for (const [one, other] of [
          [alice, bob],
          [bob, alice],
        ] as const) {
          await one.call("contacts.network", { userId: other.userId, policy: "relay" });
          await one.until(
            "a relayed link",
            async () => (await one.call("links.list", {})).find((link) => link.path === "relay") ?? null,
          );
        }
      };
      await overRelay();
      await alice.call("messages.send", { chatId: bob.userId, text: "canary-text-while-linked" });
      await bob.until(
        "the first text",
        async () =>
          (await bob.call("messages.list", { chatId: alice.userId, limit: 5 })).find((m) =>
            m.text.startsWith("canary"),
          ) ?? null,
      );
      // Through the mailbox: nobody is there to take it.
      await bob.kill();
      await alice.call("messages.send", { chatId: bob.userId, text: "canary-text-through-the-mailbox" });
      await alice.until(
        "stored at the server",
        async () =>
          (await alice.call("messages.list", { chatId: bob.userId, limit: 1 })).find((m) => m.state === "sent") ?? null,
      );
      const path = join(dir, "canary-file-name.txt");
      const content = Buffer.from("canary-file-content ".repeat(20_000));
      await writeFile(path, content);
      const file = await alice.call("files.share", { chatId: bob.userId, path });
      bob = await open("bob");
      await bob.until(
        "the offer",
        async () => (await bob.call("files.list", {})).find((f) => f.fileId === file.fileId) ?? null,
      );
      await overRelay();
      const { view } = await follow(bob, file.fileId, 60_000);
      expect(view.phase).toBe("complete");

      const secrets = new Map<string, Buffer>([
        ["a text over the link", Buffer.from("canary-text-while-linked")],
        ["a text through the mailbox", Buffer.from("canary-text-through-the-mailbox")],
        ["a file name", Buffer.from("canary-file-name")],
        ["file content", Buffer.from("canary-file-content ")],
        ["the plaintext's hash", createHash("sha256").update(content).digest()],
        ["a display name", Buffer.from("CanaryName-")],
        ["SDP", Buffer.from("a=ice-ufrag:")],
        ["a candidate", Buffer.from("typ host")],
        ["a fingerprint", Buffer.from("a=fingerprint:sha-256")],
        ["a description of the relay", Buffer.from("a=weir-relay")],
        ["a control message", Buffer.from('{"type":"ping"')],
      ]);
      const places = new Map<string, Buffer>([
        ["database", await readTree(join(dir, "server"))],
        ["traffic", proxy.recorded()],
        ["log", Buffer.from(server.log())],
      ]);
      // The search works: what the server may know is found where it must be.
      expect(places.get("database")?.includes(alice.userId)).toBe(true);
      expect(places.get("traffic")?.includes(file.fileId)).toBe(true);
      expect(proxy.messages()).toBeGreaterThan(40);
      expect(proxy.recorded().length).toBeGreaterThan(2 * content.length);
      for (const [where, bytes] of places)
        for (const [what, secret] of secrets)
          for (const form of formsOf(secret))
            expect(bytes.includes(form), `${what} in the server's ${where}`).toBe(false);
    } finally {
      await Promise.all([alice.kill(), bob.kill()]);
    }
  } finally {
    await server.kill();
    await rm(dir, { recursive: true, force: true });
  }
});
