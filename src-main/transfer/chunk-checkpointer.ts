import { parentPort, workerData } from "node:worker_threads";
import { assert } from "#shared/base/assert.ts";
import { messageOf } from "#shared/base/result.ts";
import { Database } from "../store/database.ts";

/**
 * Entry of the thread that copies the WAL of chunks.db while the chunk worker goes on committing: a checkpoint waits for
 * the disk for longer than a window of chunks lasts. It starts when the chunk worker needs it and ends with it.
 */
const port = parentPort;
assert(port !== null, "this module is the entry of a worker");
// workerData is typed `any` by Node; wal-keeper.ts passes exactly this.
const { databasePath }: { readonly databasePath: string } = workerData;
const db = Database.openForCheckpoints(databasePath);

const pass = (): string | null => {
  try {
    db.checkpoint("passive");
    return null;
  } catch (error) {
    return messageOf(error);
  }
};

port.on("message", (message: "pass" | "end") => {
  if (message === "pass") {
    port.postMessage(pass());
    return;
  }
  db.dispose();
  port.close();
});
