import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { follow } from "../../scripts/demo.ts";
import { type HeadlessProfile, pair, startHeadless, startServer } from "../../scripts/headless-process.ts";
import { sha256OfFile, temporaryFolder, writeRandomFile } from "../support/files.ts";

const FILE_BYTES = 12 * 1024 * 1024;

/** Over the server's relay alone: a direct path would outlive the server and prove nothing. */
const linkOverRelay = async (one: HeadlessProfile, other: HeadlessProfile): Promise<void> => {
  for (const [from, to] of [
    [one, other],
    [other, one],
  ] as const)
    await from.call("contacts.network", { userId: to.userId, policy: "relay" });
  for (const from of [one, other]) {
    await from.until(
      "a relayed link",
      async () => (await from.call("links.list", {})).find((link) => link.path === "relay") ?? null,
    );
  }
};

test("a transfer over the relay goes on by itself after the server was killed", async () => {
  const folder = await temporaryFolder();
  const started: { kill(): Promise<void> }[] = [];
  const open = async (name: string, server: string): Promise<HeadlessProfile> => {
    await mkdir(join(folder.path, name, "downloads"), { recursive: true });
    const profile = await startHeadless({
      dataDir: join(folder.path, name, "data"),
      server,
      name,
      downloads: join(folder.path, name, "downloads"),
    });
    started.push(profile);
    return profile;
  };
  try {
    // Slow enough that the kill comes in the middle.
    const args = ["--relay-rate", "8192"];
    let server = await startServer(join(folder.path, "server"), { args });
    started.push(server);
    const { url } = server.ready;
    const [alice, bob] = [await open("alice", url), await open("bob", url)];
    await pair(alice, bob, "code");
    await linkOverRelay(alice, bob);
    const path = join(folder.path, "large.bin");
    const sha256 = await writeRandomFile(path, FILE_BYTES);
    const file = await alice.call("files.share", { chatId: bob.userId, path });
    await bob.until(
      "the offer",
      async () => (await bob.call("files.list", {})).find((found) => found.fileId === file.fileId) ?? null,
    );
    const finished = follow(bob, file.fileId, 90_000);
    const half = await bob.until("a third of it", async () => {
      const [transfer] = await bob.call("transfers.list", {});
      return transfer !== undefined && transfer.bytesStored > FILE_BYTES / 3 ? transfer : null;
    });
    await server.kill();
    expect(half.phase).toBe("downloading");
    expect(half.seeders.map((seeder) => seeder.path)).toEqual(["relay"]);
    server = await startServer(join(folder.path, "server"), { args, port: Number(new URL(url).port) });
    started.push(server);
    const { view } = await finished;
    expect(view.phase).toBe("complete");
    expect(await sha256OfFile(view.savedPath ?? "")).toBe(sha256);
    // What was stored before the kill was not asked for again: only what was on its way.
    expect(view.duplicateChunks).toBe(0);
    expect(view.requestedChunks - view.chunkCount).toBeLessThanOrEqual(64);
    const health = await (await fetch(`${url.replace("ws:", "http:")}/health`)).json();
    expect(health).toMatchObject({ relayViolations: 0, failures: 0, malformed: 0 });
    expect((health as { relayedBytes: number }).relayedBytes).toBeLessThan(FILE_BYTES);
  } finally {
    await Promise.all(started.map((one) => one.kill()));
    await folder.dispose();
  }
}, 120_000);
