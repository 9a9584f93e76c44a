import { readFileSync, writeSync } from "node:fs";
import { open } from "node:fs/promises";
import { CHUNK_TAG_BYTES } from "#shared/base/limits.ts";
import { chunkLength } from "#shared/wire/manifest.ts";
import { PieceMap } from "../../src-main/transfer/piece-map.ts";
import { must, startWorker } from "./files.ts";

/**
 * A process that receives one file or folder into its chunk worker and may be killed at any moment. It says on stdout what
 * it fetched (F), what was stored for good (S), how far it has assembled (A), that it compared (V), and where the finished
 * file is (D).
 *
 *   argv: description.json (spec with binary fields as arrays, sha256, directory, name, sealed, database)
 */
const describe = JSON.parse(readFileSync(process.argv[2] ?? "", "utf8"));
const { directory, name, sealed, database, choice } = describe;
const listSha256 = Uint8Array.from(describe.spec.folder?.listSha256 ?? []);
const spec = {
  ...describe.spec,
  root: Uint8Array.from(describe.spec.root),
  key: Uint8Array.from(describe.spec.key),
  ...(describe.spec.folder === undefined ? {} : { folder: { ...describe.spec.folder, listSha256 } }),
};
/** Of a folder: what is wanted of it. */
const folder = choice === undefined ? {} : { folder: choice };
const sha256 = Uint8Array.from(describe.sha256);
const say = (line: string): void => void writeSync(1, `${line}\n`);

const worker = startWorker(database);
let opened = must(await worker.run("open", { spec, directory, ...folder }).result);
say("R");
let { finishedPath } = opened;
if (finishedPath === null) {
  const leaves = Uint8Array.from(describe.leaves);
  must(await worker.run("storeLeaves", { spec, page: 0, payload: leaves }).result);
  const source = await open(sealed);
  const counters = { requested: 0, duplicate: 0, late: 0, rejected: 0 };
  const fetchMissing = async (): Promise<void> => {
    const stored = PieceMap.fromBytes(spec.chunkCount, opened.stored);
    const pending: Promise<void>[] = [];
    for (let i = stored.nextMissing(0, null); i !== null; i = stored.nextMissing(i + 1, null)) {
      const index = i;
      say(`F ${index}`);
      const bytes = new Uint8Array(chunkLength(spec, index) + CHUNK_TAG_BYTES);
      await source.read(bytes, 0, bytes.length, index * (spec.chunkBytes + CHUNK_TAG_BYTES));
      const isStored = new Promise<void>((resolve, reject) => {
        worker.storeChunk(spec, counters, { index, bytes }, (outcome) => {
          if (typeof outcome !== "string" || outcome === "rejected") return reject(new Error(JSON.stringify(outcome)));
          say(`S ${index}`);
          resolve();
        });
      });
      pending.push(isStored);
      if (pending.length >= 32) await pending.shift();
    }
    await Promise.all(pending);
  };
  await fetchMissing();
  if (opened.isPartial) {
    opened = must(await worker.run("open", { spec, directory, ...folder }).result);
    await fetchMissing();
  }
  const onProgress = (chunks: number): void => say(`A ${chunks}`);
  must(await worker.run("assemble", { spec, directory, ...folder }, onProgress).result);
  must(await worker.run("verify", { spec, directory, sha256, ...folder }).result);
  say("V");
  finishedPath = must(await worker.run("finish", { spec, directory, name, ...folder }).result);
}
say(`D ${finishedPath}`);
must(await worker.run("drop", { fileId: spec.fileId, directory: null, what: "chunks" }).result);
await worker.dispose();
