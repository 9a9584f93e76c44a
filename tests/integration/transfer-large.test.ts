import { mkdir, open, readdir, stat, statfs, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { CHUNK_BYTES_LARGE, LARGE_FILE_BYTES, WAL_WHOLE_FILE_BYTES } from "#shared/base/limits.ts";
import { isFullRun } from "../support/counts.ts";
import { createTransferWorld, type TransferWorld, viewWhere } from "../support/transfer-world.ts";

const MiB = 1024 * 1024;
/** Just too large for small chunks; in a full run for the WAL too. */
const SIZE = (isFullRun ? WAL_WHOLE_FILE_BYTES : LARGE_FILE_BYTES) + 5 * CHUNK_BYTES_LARGE + 17;
/** The received file, its chunks with what storing them costs, and the reserve. */
const ROOM_BYTES = 2.5 * SIZE;
/** Where the file is not zero: its ends, and the border between two chunks. */
const MARKS = [0, CHUNK_BYTES_LARGE - 2, 100 * MiB + 1, SIZE - 4];

let world: TransferWorld;
beforeEach(async () => {
  world = await createTransferWorld();
});
afterEach(() => world.dispose());

test("a large file travels in chunks of 256 KiB", { timeout: 180_000 }, async (context) => {
  const { bavail, bsize } = await statfs(world.folder);
  if (bavail * bsize < ROOM_BYTES) return context.skip(`there is no room for it here: ${bavail * bsize} bytes`);
  await mkdir(join(world.folder, "source"));
  const path = join(world.folder, "source", "large.bin");
  await writeFile(path, "");
  await truncate(path, SIZE);
  const source = await open(path, "r+");
  for (const at of MARKS) await source.write(Buffer.from("mark"), 0, 4, at);
  await source.close();
  const file = await world.share(path);
  expect(file.chunkCount).toBe(Math.ceil(SIZE / CHUNK_BYTES_LARGE));
  world.links.connect();
  expect((await world.bob.transfers.start(file.fileId)).ok).toBe(true);
  const done = await viewWhere(world.bob, ({ phase }) => phase === "complete" || phase === "failed", 150_000);
  // The SHA-256 of the whole file was compared while verifying; here only that it is the right one's.
  expect(done).toMatchObject({ phase: "complete", error: null, chunksStored: file.chunkCount, bytesStored: SIZE });
  const saved = await open(done.savedPath ?? "");
  for (const at of MARKS) {
    const mark = Buffer.alloc(4);
    await saved.read(mark, 0, 4, at);
    expect(mark.toString()).toBe("mark");
  }
  expect((await saved.stat()).size).toBe(SIZE);
  await saved.close();
  expect(world.links.heldBytes).toBe(0);
});

// Reading it takes as long as many other tests together.
test.runIf(isFullRun)(
  "a sparse file of 5 GiB is shared where it is, and takes no room beside it",
  { timeout: 180_000 },
  async () => {
    const size = 5 * 1024 * MiB;
    const path = join(world.folder, "sparse.bin");
    await writeFile(path, "");
    await truncate(path, size);
    const file = await world.share(path);
    expect(file).toMatchObject({
      sizeBytes: size,
      chunkCount: size / CHUNK_BYTES_LARGE,
      seeders: [world.alice.userId],
    });
    // SHA-256 of that many zero bytes, as `head -c 5G /dev/zero | sha256sum` says it.
    expect(file.sha256).toBe("7f06c62352aebd8125b2a1841e2b9e1ffcbed602f381c3dcb3200200e383d1d5");
    let beside = 0;
    for (const name of await readdir(world.folder, { recursive: true })) {
      const { blocks } = await stat(join(world.folder, name));
      if (name !== "sparse.bin") beside += blocks * 512;
    }
    // The databases of both people, and the leaves: nothing that grows with the file's bytes.
    expect(beside).toBeLessThan(size / 50);
  },
);
