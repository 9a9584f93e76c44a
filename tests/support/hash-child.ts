import { writeSync } from "node:fs";
import { freshFileId, freshKey, startWorker } from "./files.ts";

/** Hashes a file for sharing in a process that may be killed at any moment; says how far it is. argv: path, database. */
const [path = "", database = ""] = process.argv.slice(2);
const worker = startWorker(database);
const input = { fileId: freshFileId(), key: freshKey(), path };
await worker.run("hashFile", input, (bytes) => writeSync(1, `${bytes}\n`)).result;
await worker.dispose();
