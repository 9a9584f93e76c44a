import { createHash } from "node:crypto";
import { closeSync, constants, openSync, readSync } from "node:fs";
import { setImmediate } from "node:timers/promises";
import { parentPort, workerData } from "node:worker_threads";
import { assert } from "#shared/base/assert.ts";
import { WORK_BATCH_BYTES } from "#shared/base/limits.ts";
import { ContentMac } from "../crypto/content-mac.ts";
import type { FromHasher, HasherInput, ToHasher } from "./worker/read-backs.ts";

/**
 * Entry of the thread that reads back and hashes what was written of one file, while the chunk worker writes the rest of it.
 * It ends by itself after the last byte, or after an error, which is told by its code alone: messages of the system hold paths.
 */
const port = parentPort;
assert(port !== null, "this module is the entry of a worker");
// workerData is typed `any` by Node; read-backs.ts passes exactly this.
const { path, sizeBytes, macKey }: HasherInput = workerData;

let writtenBytes = 0;
let isStopped = false;
let isReading = false;
let position = 0;
let fd: number | null = null;
const sha256 = createHash("sha256");
const mac = new ContentMac(macKey);
const buffer = Buffer.allocUnsafeSlow(WORK_BATCH_BYTES);

/** Waiting for the disk here holds up nobody else. */
const readSome = (): void => {
  fd ??= openSync(path, constants.O_RDONLY | (constants.O_NOFOLLOW ?? 0));
  const count = readSync(fd, buffer, 0, Math.min(buffer.length, writtenBytes - position), position);
  if (count === 0) throw Object.assign(new Error("the file became shorter"), { code: "SHORT" });
  const bytes = buffer.subarray(0, count);
  sha256.update(bytes);
  mac.update(bytes);
  position += count;
};

const follow = async (): Promise<FromHasher | null> => {
  while (!isStopped && position < writtenBytes) {
    readSome();
    // A `stop` that came meanwhile is seen.
    await setImmediate();
  }
  if (isStopped) return { type: "stopped" };
  if (position < sizeBytes) return null;
  return { type: "hashed", sha256: new Uint8Array(sha256.digest()), mac: mac.digest() };
};

const end = (result: FromHasher): void => {
  if (fd !== null) closeSync(fd);
  port.postMessage(result);
  port.close();
};

const codeOf = (error: unknown): string =>
  typeof error === "object" && error !== null && "code" in error ? String(error.code) : "unknown";

const run = async (): Promise<void> => {
  if (isReading) return;
  isReading = true;
  try {
    const result = await follow();
    if (result !== null) end(result);
  } catch (error) {
    isStopped = true;
    end({ type: "failed", code: codeOf(error) });
  }
  isReading = false;
};

port.on("message", (message: ToHasher) => {
  if (message.type === "stop") isStopped = true;
  else writtenBytes = message.bytes;
  void run();
});
