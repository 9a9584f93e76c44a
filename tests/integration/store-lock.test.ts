import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { afterEach, beforeEach, expect, test } from "vitest";
import { lockProfile } from "../../src-main/store/lock.ts";

const HOLDER = join(import.meta.dirname, "../support/lock-holder.ts");
let directory: string;
const children: ChildProcess[] = [];
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "weir-lock-"));
});
afterEach(async () => {
  for (const child of children.splice(0)) await kill(child);
  rmSync(directory, { recursive: true, force: true });
});

const hold = async (): Promise<{ child: ChildProcess; answer: unknown }> => {
  const child = spawn(process.execPath, [HOLDER, directory], { stdio: ["ignore", "pipe", "inherit"] });
  children.push(child);
  const [line] = await once(createInterface({ input: child.stdout }), "line");
  return { child, answer: JSON.parse(String(line)) };
};

const kill = async (child: ChildProcess): Promise<void> => {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, "exit");
  child.kill("SIGKILL");
  await ended;
};

test("a profile that another process uses is refused in words, with its process id", async () => {
  const { child } = await hold();
  expect(lockProfile(directory)).toMatchObject({
    ok: false,
    error: { type: "profile_in_use", message: expect.stringContaining(`process ${child.pid}`) },
  });
});

test("SIGKILL of the holder frees the profile, ten times in a row", async () => {
  for (let round = 0; round < 10; round++) {
    const { child, answer } = await hold();
    expect(answer).toEqual({ ok: true });
    await kill(child);
  }
  const lock = lockProfile(directory);
  expect(lock.ok).toBe(true);
  if (lock.ok) lock.value.dispose();
});

test("the same process cannot take it twice, and a refused try does not free it", async () => {
  const first = lockProfile(directory);
  expect(first.ok).toBe(true);
  expect(lockProfile(directory)).toMatchObject({ error: { type: "profile_in_use" } });
  expect((await hold()).answer).toMatchObject({ ok: false, error: { type: "profile_in_use" } });
  if (first.ok) first.value.dispose();
  expect((await hold()).answer).toEqual({ ok: true });
});
