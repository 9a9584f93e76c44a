import { writeSync } from "node:fs";
import { setImmediate } from "node:timers/promises";
import { systemClock } from "../../src-main/env.ts";
import { ChunkTables } from "../../src-main/store/chunks.ts";
import { Database } from "../../src-main/store/database.ts";
import { chunksMigrations } from "../../src-main/store/schema/chunks.ts";
import { checkpointThread, WalKeeper } from "../../src-main/transfer/worker/wal-keeper.ts";
import { checkpointerUrl, freshFileId, quietLog } from "./files.ts";

/**
 * Stores chunks of a large file without end while the checkpoint thread copies, and may be killed at any moment. Says
 * how many of which file are committed. argv: database.
 */
const [path = ""] = process.argv.slice(2);
const db = Database.openChunks(path, chunksMigrations);
const startThread = checkpointThread(checkpointerUrl, path, quietLog);
const wal = new WalKeeper({ db, clock: systemClock, log: quietLog, startThread });
const tables = new ChunkTables(db, () => wal.committed());
const { file } = tables.ensure(freshFileId());
for (let count = 0; ; ) {
  wal.beforeChunks(Number.MAX_SAFE_INTEGER);
  tables.transaction(() => {
    for (let i = 0; i < 32; i += 1) {
      tables.saveChunk(file, count, Buffer.alloc(65_552, count % 251));
      count += 1;
    }
  });
  writeSync(1, `${file} ${count}\n`);
  await setImmediate();
}
