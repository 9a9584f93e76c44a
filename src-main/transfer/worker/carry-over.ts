import { freeNow } from "#shared/base/bytes.ts";
import { CHUNK_TAG_BYTES } from "#shared/base/limits.ts";
import { err, ok } from "#shared/base/result.ts";
import type { ChunkTables } from "../../store/chunks.ts";
import type { JobContext, JobResult, Jobs } from "../chunk-worker-protocol.ts";
import { writeErrorOf, yieldTurn } from "./io.ts";
import type { KnownFiles } from "./known-files.ts";

/**
 * Chunks are deterministic, so a chunk of the new file can be made of the one that is there, exactly as a seeder would send
 * it. It is not proven against the new tree, which is not here yet: the SHA-256 of the whole plaintext judges it in the end,
 * and whoever is served it proves it. A row that the disk has damaged is left out, and fetched like any other.
 */
export const carryOver = async (
  { tables, files }: { readonly tables: ChunkTables; readonly files: KnownFiles },
  { from, to }: Jobs["carryOver"]["input"],
  context: JobContext,
): Promise<JobResult<"carryOver">> => {
  try {
    tables.ensure(to.fileId);
    const [before, after] = [files.get(from), files.get(to)];
    let taken = 0;
    for (let next = 0; ; ) {
      const indices = tables.indicesFrom(before.file, next);
      const last = indices.at(-1);
      if (last === undefined) return ok(taken);
      tables.transaction(() => {
        for (const index of indices) {
          const data = tables.chunk(before.file, index);
          const plaintext = data === null ? null : before.cipher.decrypt(index, data);
          if (plaintext === null) continue;
          const sealed = new Uint8Array(plaintext.length + CHUNK_TAG_BYTES);
          after.cipher.encryptInto(sealed, index, plaintext);
          tables.saveChunk(after.file, index, sealed);
          freeNow(plaintext);
          taken += 1;
        }
      });
      next = last + 1;
      await yieldTurn(context.signal);
    }
  } catch (error) {
    return err(writeErrorOf(error));
  }
};
