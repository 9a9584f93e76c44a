import { createHash } from "node:crypto";
import { constants } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { type Bytes, bytesEqual } from "#shared/base/bytes.ts";
import { WORK_BATCH_BYTES } from "#shared/base/limits.ts";
import { err, ok } from "#shared/base/result.ts";
import { ContentMac } from "../../crypto/content-mac.ts";
import type { JobContext, JobResult, Jobs } from "../chunk-worker-protocol.ts";
import { type DownloadTools, partPath } from "./download.ts";
import { failWork, readWhole, writeErrorOf, yieldTurn } from "./io.ts";
import type { ReadBack } from "./read-backs.ts";

/**
 * Reads the temporary file back and compares its SHA-256 with the one that the owner sent. What was hashed while the file was
 * assembled is not hashed again if every byte of it is still the same. Whatever does not fit is hashed from the start, and
 * that alone decides.
 */
export const verify = async (
  { readBacks }: Pick<DownloadTools, "readBacks">,
  { spec, directory, sha256 }: Jobs["verify"]["input"],
  context: JobContext,
): Promise<JobResult<"verify">> => {
  const stopReading = (): void => readBacks.forget(spec.fileId);
  context.signal.addEventListener("abort", stopReading, { once: true });
  let file: FileHandle | undefined;
  try {
    file = await open(partPath(directory, spec), constants.O_RDONLY | (constants.O_NOFOLLOW ?? 0));
    const { size } = await file.stat();
    const bytes = new FileBytes(file, size, context);
    const readBack = readBacks.of(spec.fileId);
    const isRight =
      size === spec.sizeBytes &&
      ((readBack !== null && (await isUnchanged(bytes, readBack, sha256))) || (await hasSha256(bytes, sha256)));
    if (!isRight) return failWork("checksum_mismatch", "The finished file is not the one that was shared. Try again.");
    return ok(null);
  } catch (error) {
    return err(writeErrorOf(error));
  } finally {
    context.signal.removeEventListener("abort", stopReading);
    readBacks.forget(spec.fileId);
    await file?.close();
  }
};

/** Reads the whole file, the next batch while the last one is used. Its progress never goes back, also when it is read again. */
class FileBytes {
  readonly #file: FileHandle;
  readonly #size: number;
  readonly #context: JobContext;
  readonly #buffers = [Buffer.allocUnsafeSlow(WORK_BATCH_BYTES), Buffer.allocUnsafeSlow(WORK_BATCH_BYTES)] as const;
  #told = 0;

  constructor(file: FileHandle, size: number, context: JobContext) {
    this.#file = file;
    this.#size = size;
    this.#context = context;
  }

  /** False when the file became shorter. */
  async readInto(target: { update(bytes: Uint8Array): unknown }): Promise<boolean> {
    let [ready, spare] = this.#buffers;
    let reading = this.#read(ready, 0);
    for (let position = 0; position < this.#size; ) {
      const batch = await reading;
      if (batch === null) return false;
      position += batch.length;
      [ready, spare] = [spare, ready];
      reading = this.#read(ready, position);
      reading.catch(() => undefined);
      target.update(batch);
      if (position > this.#told) this.#context.progress(position);
      this.#told = Math.max(this.#told, position);
      await yieldTurn(this.#context.signal);
    }
    await reading;
    return true;
  }

  async #read(target: Buffer, position: number): Promise<Uint8Array | null> {
    const batch = target.subarray(0, Math.min(target.length, this.#size - position));
    return (await readWhole(this.#file, batch, position)) ? batch : null;
  }
}

const isUnchanged = async (bytes: FileBytes, { macKey, result }: ReadBack, sha256: Bytes): Promise<boolean> => {
  const mac = new ContentMac(macKey);
  const isWhole = await bytes.readInto(mac);
  const before = await result;
  return isWhole && before !== null && bytesEqual(before.sha256, sha256) && bytesEqual(before.mac, mac.digest());
};

const hasSha256 = async (bytes: FileBytes, sha256: Bytes): Promise<boolean> => {
  const hash = createHash("sha256");
  return (await bytes.readInto(hash)) && bytesEqual(hash.digest(), sha256);
};
