import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { FileId } from "#shared/base/ids.ts";
import { decodeBulkFrame } from "#shared/wire/frame.ts";
import type { FileOffer } from "#shared/wire/manifest.ts";
import { createChunkCipher } from "../../src-main/crypto/chunk-cipher.ts";
import { sortKey } from "../../src-main/transfer/folder-list.ts";
import { sha256OfFile, writeRandomFile } from "../support/files.ts";
import { hexOf, manyFiles, readTree, writeTree } from "../support/folders.ts";
import { createTransferWorld, type TransferWorld, viewWhere } from "../support/transfer-world.ts";

/** Alice's file gets another key while Bob fetches it. */
let world: TransferWorld;
beforeEach(async () => {
  world = await createTransferWorld();
});
afterEach(() => world.dispose());

const offerOf = (offer: FileOffer | undefined): FileOffer => {
  if (offer === undefined) throw new Error("nothing was shared");
  return offer;
};
const idOf = ({ signed }: FileOffer): FileId => signed.manifest.fileId;

/** Every frame that Alice sends from now on. */
const record = (): Uint8Array<ArrayBuffer>[] => {
  const frames: Uint8Array<ArrayBuffer>[] = [];
  const { a } = world.links;
  const send = a.sendBulk.bind(a);
  a.sendBulk = (peer, generation, frame) => {
    if (frame instanceof Uint8Array) frames.push(new Uint8Array(frame));
    return send(peer, generation, frame);
  };
  return frames;
};
const chunksOf = (frames: readonly Uint8Array<ArrayBuffer>[]) =>
  frames.flatMap((frame) => {
    const decoded = decodeBulkFrame(frame);
    return decoded.ok && decoded.value.kind === "chunk" ? [decoded.value] : [];
  });

describe("another key for a file", () => {
  const begin = async () => {
    const { alice, bob, links } = world;
    const frames = record();
    const path = join(world.folder, "large.bin");
    const sha256 = await writeRandomFile(path, 48 * 1024 * 1024);
    await world.share(path);
    const before = offerOf(alice.sent.at(-1)?.offer);
    // Slow enough to be far from complete when the key changes.
    const speed = { downloadBytesPerSecond: 16_000_000, uploadBytesPerSecond: null };
    bob.settingsChanged.emit({ ...speed, drainTimeoutMs: 5000, chunkStorageBytes: null });
    links.connect();
    await bob.transfers.start(idOf(before));
    await viewWhere(bob, ({ chunksStored }) => chunksStored > 100);
    return { path, sha256, before, frames };
  };

  test("in a running download: what was sent stays, the rest comes under the new key alone, and the file is whole", async () => {
    const { alice, bob } = world;
    const { sha256, before, frames } = await begin();
    const rekeyed = await alice.files.rekey(idOf(before));
    if (!rekeyed.ok) throw new Error(rekeyed.error.type);
    const after = offerOf(alice.sent.at(-1)?.offer);
    expect(after).toMatchObject({ replaces: idOf(before), name: before.name, sha256: before.sha256 });
    expect(alice.files.view(idOf(before))?.closed).toBe("replaced");
    expect(alice.files.mayFetch(bob.userId, idOf(before))).toBe("refuse");
    // From here on somebody listens who has the old key, and gets every frame.
    frames.length = 0;
    expect(bob.files.record(after, alice.userId, alice.shares.operations(idOf(after), 1)[0]).ok).toBe(true);
    const done = await viewWhere(bob, ({ fileId, phase }) => fileId === idOf(after) && phase === "complete", 60_000);
    expect(await sha256OfFile(done.savedPath ?? "")).toBe(sha256);
    const { chunkCount } = after.signed.manifest;
    expect(bob.transfers.list().map(({ fileId }) => fileId)).toEqual([idOf(after)]);

    const old = createChunkCipher(idOf(before), before.key, chunkCount);
    const fresh = createChunkCipher(idOf(after), after.key, chunkCount);
    // Even whoever tries the old key in the place of the new one.
    const mixed = createChunkCipher(idOf(after), before.key, chunkCount);
    const chunks = chunksOf(frames);
    // What had arrived under the old key was not sent again.
    expect(chunks.length).toBeGreaterThan(0);
    expect(chunks.length).toBeLessThanOrEqual(chunkCount - 100);
    for (const { index, payload } of chunks) {
      expect(fresh.decrypt(index, payload)).not.toBeNull();
      expect([old.decrypt(index, payload), mixed.decrypt(index, payload)]).toEqual([null, null]);
    }
  });

  test("of a folder of which only some files were chosen: the choice stays, and what was stored is not sent again", async () => {
    const { alice, bob, links } = world;
    const tree = manyFiles(48, 256 * 1024);
    const source = join(world.folder, "trip");
    await writeTree(source, tree);
    const { fileId } = await world.share(source);
    const before = offerOf(alice.sent.at(-1)?.offer);
    const speed = { downloadBytesPerSecond: 4_000_000, uploadBytesPerSecond: null };
    bob.settingsChanged.emit({ ...speed, drainTimeoutMs: 5000, chunkStorageBytes: null });
    links.connect();
    const chosen: [number, number][] = [[0, 40]];
    const frames = record();
    const begun = await bob.transfers.start(fileId, undefined, chosen);
    if (!begun.ok) throw new Error(begun.error.type);
    await viewWhere(bob, ({ chunksStored }) => chunksStored > 40);
    const rekeyed = await alice.files.rekey(idOf(before));
    if (!rekeyed.ok) throw new Error(rekeyed.error.type);
    const after = offerOf(alice.sent.at(-1)?.offer);
    expect(after.folder).toEqual(before.folder);
    frames.length = 0;
    const stored = bob.transfers.list()[0]?.chunksStored ?? 0;
    expect(bob.files.record(after, alice.userId, alice.shares.operations(idOf(after), 1)[0]).ok).toBe(true);
    const done = await viewWhere(bob, ({ fileId, phase }) => fileId === idOf(after) && phase === "complete", 60_000);
    const wanted = Object.entries(hexOf(tree)).sort(([a], [b]) => (sortKey(a) < sortKey(b) ? -1 : 1));
    expect(await readTree(done.savedPath ?? "")).toEqual(Object.fromEntries(wanted.slice(0, 40)));
    expect(stored).toBeGreaterThan(40);
    // Files and chunks of the same size, and the list before them.
    const chunks = chunksOf(frames);
    expect(chunks.length).toBeGreaterThan(0);
    expect(chunks.length).toBeLessThanOrEqual(40 * 4 + 1 - stored);
    expect(bob.transfers.list()).toHaveLength(1);
  });

  test("goes on after a restart that came in between, and carries over what is there", async () => {
    const { alice } = world;
    const { sha256, before, frames } = await begin();
    world.links.cut();
    frames.length = 0;
    await alice.files.rekey(idOf(before));
    const after = offerOf(alice.sent.at(-1)?.offer);
    expect(world.bob.files.record(after, alice.userId).ok).toBe(true);
    // At once, so that little or nothing of it has happened.
    await world.restartBob();
    world.links.connect();
    const done = await viewWhere(
      world.bob,
      ({ fileId, phase }) => fileId === idOf(after) && phase === "complete",
      60_000,
    );
    expect(await sha256OfFile(done.savedPath ?? "")).toBe(sha256);
    expect(frames.length).toBeGreaterThan(0);
    expect(frames.length).toBeLessThan(after.signed.manifest.chunkCount);
  });

  test("is refused for a file that was changed since, and changes nothing then", async () => {
    const { alice, bob } = world;
    const path = join(world.folder, "small.bin");
    await writeRandomFile(path, 100_000);
    await world.share(path);
    const before = offerOf(alice.sent.at(-1)?.offer);
    await writeRandomFile(path, 100_000);
    expect(await alice.files.rekey(idOf(before))).toMatchObject({ error: { type: "file_changed" } });
    expect(alice.sent).toHaveLength(1);
    expect(alice.files.mayFetch(bob.userId, idOf(before))).toBe("serve");
  });

  test("of somebody else's file takes the place of nothing", async () => {
    const { alice, bob } = world;
    const { before } = await begin();
    const other = join(world.folder, "other.bin");
    await writeRandomFile(other, 100_000);
    await world.share(other);
    const unrelated = { ...offerOf(alice.sent.at(-1)?.offer), replaces: idOf(before) };
    expect(bob.files.replacedBy(unrelated)).toBeNull();
  });
});
