import { execFileSync } from "node:child_process";
import {
  closeSync,
  copyFileSync,
  existsSync,
  fstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statfsSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Worker } from "node:worker_threads";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { loadFallback, loadNative, type NativeFs } from "../../native/index.ts";

const ORIGIN = "weir://file/abc";
const root = join(import.meta.dirname, "..", "..");
const built = existsSync(join(root, "native", "build", "Release", "weir_native.node"));
const onCi = process.env["CI"] === "true";

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "weir-native-"));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

const recordingLog = () => {
  const lines: string[] = [];
  const add = (message: string) => void lines.push(message);
  return { lines, info: add, warn: add };
};

const withFile = <T>(content: string | Buffer, body: (fd: number, path: string) => T): T => {
  const path = join(directory, "reserved.part");
  writeFileSync(path, content);
  const fd = openSync(path, "r+");
  try {
    return body(fd, path);
  } finally {
    closeSync(fd);
  }
};

const codeOf = (action: () => void): string => {
  try {
    action();
  } catch (error) {
    return error instanceof Error && "code" in error ? String(error.code) : `no code: ${String(error)}`;
  }
  return "no error";
};

/** The mark as another program on this system reads it; null when there is none. */
const readMark = (path: string): string | null => {
  try {
    switch (process.platform) {
      case "win32":
        return readFileSync(`${path}:Zone.Identifier`, "utf8");
      case "darwin":
        return execFileSync("/usr/bin/xattr", ["-p", "com.apple.quarantine", path], {
          encoding: "utf8",
          stdio: "pipe",
        });
      default: {
        const script = "import os,sys; sys.stdout.write(os.getxattr(sys.argv[1], 'user.xdg.origin.url').decode())";
        return execFileSync("python3", ["-c", script, path], { encoding: "utf8", stdio: "pipe" });
      }
    }
  } catch {
    return null;
  }
};

describe.skipIf(!built && !onCi)("native addon", () => {
  it("is what loadNative gives where it was built", () => {
    const log = recordingLog();
    expect(loadNative(log).kind).toBe("native");
    expect(log.lines).toEqual([]);
  });

  complianceSuite(() => loadNative());

  it("allocates every block of a reserved file", () => {
    withFile("", (fd) => {
      loadNative().reserve(fd, 3_000_000);
      const file = fstatSync(fd);
      if (process.platform !== "win32") expect(file.blocks * 512).toBeGreaterThanOrEqual(3_000_000);
    });
  });

  it("marks a received file so that other programs see it", () => {
    const path = join(directory, "received.txt");
    writeFileSync(path, "content");
    loadNative().markQuarantine(path, ORIGIN);
    expect(readMark(path)).toContain(process.platform === "darwin" ? "Weir" : ORIGIN);
    expect(readFileSync(path, "utf8")).toBe("content");
  });

  it("works in a worker thread", async () => {
    const path = join(directory, "from-worker");
    writeFileSync(path, "");
    const source = `
      const { parentPort, workerData } = require("node:worker_threads");
      require(workerData.addon).renameNoReplace(workerData.path, workerData.path + ".done");
      parentPort.postMessage("done");`;
    const addon = join(root, "native", "build", "Release", "weir_native.node");
    const worker = new Worker(source, { eval: true, workerData: { addon, path } });
    await new Promise<void>((resolve, reject) => worker.once("message", () => resolve()).once("error", reject));
    await worker.terminate();
    expect(readdirSync(directory)).toEqual(["from-worker.done"]);
  });

  // A file system of 1 MiB, so that the allocation itself can fail; mounting needs root.
  it.runIf(process.platform === "linux" && process.getuid?.() === 0)(
    "reports a full file system and gives space back",
    () => {
      const mount = join(directory, "small");
      mkdirSync(mount);
      execFileSync("mount", ["-t", "tmpfs", "-o", "size=1m", "tmpfs", mount]);
      try {
        const fd = openSync(join(mount, "file"), "w+");
        expect(codeOf(() => loadNative().reserve(fd, 2 ** 20 + 4096))).toBe("ENOSPC");
        expect(fstatSync(fd)).toMatchObject({ size: 0, blocks: 0 });
        loadNative().reserve(fd, 2 ** 19);
        const free = statfsSync(mount);
        expect(free.bavail * free.bsize).toBeLessThanOrEqual(2 ** 19);
        closeSync(fd);
      } finally {
        execFileSync("umount", [mount]);
      }
    },
  );
});

describe("JavaScript fallback", () => {
  complianceSuite(() => loadFallback());

  it("says which guarantees are weaker when no addon was built", () => {
    // A copy of the sources in a folder that has no build beside it.
    mkdirSync(join(directory, "native"));
    for (const name of ["index.ts", "fallback.ts"])
      copyFileSync(join(root, "native", name), join(directory, "native", name));
    copyFileSync(join(root, "package.json"), join(directory, "package.json"));
    mkdirSync(join(directory, "src-shared", "base"), { recursive: true });
    copyFileSync(join(root, "src-shared/base/assert.ts"), join(directory, "src-shared/base/assert.ts"));
    writeFileSync(
      join(directory, "main.ts"),
      `import { loadNative } from "./native/index.ts";
       const lines = [];
       const native = loadNative({ info: (line) => lines.push(line), warn: (line) => lines.push(line) });
       process.stdout.write(JSON.stringify({ kind: native.kind, lines }));`,
    );
    const output = JSON.parse(execFileSync(process.execPath, [join(directory, "main.ts")], { encoding: "utf8" }));
    expect(output.kind).toBe("fallback");
    expect(output.lines.length).toBeGreaterThan(0);
    for (const line of output.lines) expect(line).toMatch(/^without the native addon /);
  });

  it("logs once where files cannot be marked", () => {
    const path = join(directory, "received.txt");
    writeFileSync(path, "");
    const log = recordingLog();
    const fallback = loadFallback(log);
    fallback.markQuarantine(path, ORIGIN);
    fallback.markQuarantine(path, ORIGIN);
    if (process.platform === "linux")
      expect(log.lines).toEqual(["received files cannot be marked on this file system"]);
    else expect(readMark(path)).not.toBeNull();
  });
});

/** What both implementations must do. */
function complianceSuite(load: () => NativeFs): void {
  describe("reserve", () => {
    it("makes a file as long as asked and keeps what it holds", () => {
      withFile("abc", (fd, path) => {
        load().reserve(fd, 100_000);
        expect(fstatSync(fd).size).toBe(100_000);
        const bytes = readFileSync(path);
        expect(bytes.subarray(0, 3).toString()).toBe("abc");
        expect(bytes.subarray(3).every((byte) => byte === 0)).toBe(true);
      });
    });

    it("never cuts a file and takes zero bytes", () => {
      withFile("a longer content", (fd, path) => {
        load().reserve(fd, 4);
        load().reserve(fd, 0);
        expect(readFileSync(path, "utf8")).toBe("a longer content");
      });
    });

    it("is repeatable", () => {
      withFile("", (fd) => {
        load().reserve(fd, 200_000);
        load().reserve(fd, 200_000);
        expect(fstatSync(fd).size).toBe(200_000);
      });
    });

    // Without the addon macOS cannot be asked for the free space of a descriptor.
    it.skipIf(process.platform !== "linux")("refuses more than the disk has and leaves the file as it was", () => {
      withFile("abc", (fd, path) => {
        const disk = statfsSync(directory);
        const tooMuch = disk.bavail * disk.bsize + 2 ** 30;
        expect(codeOf(() => load().reserve(fd, tooMuch))).toBe("ENOSPC");
        expect(readFileSync(path, "utf8")).toBe("abc");
        expect(fstatSync(fd).blocks).toBeLessThanOrEqual(8);
      });
    });

    it("reports a closed descriptor", () => {
      const fd = withFile("", (open) => open);
      expect(codeOf(() => load().reserve(fd, 10))).toBe("EBADF");
    });

    it.each([-1, 0.5, Number.NaN, 2 ** 53])("refuses %s bytes as a bug", (bytes) => {
      withFile("", (fd) => expect(() => load().reserve(fd, bytes)).toThrow("whole number of bytes"));
    });
  });

  describe("renameNoReplace", () => {
    it("gives a file its final name, also one outside ASCII", () => {
      writeFileSync(join(directory, "a.part"), "content");
      load().renameNoReplace(join(directory, "a.part"), join(directory, "Grüße 文件 🎉.txt"));
      expect(readdirSync(directory)).toEqual(["Grüße 文件 🎉.txt"]);
      expect(readFileSync(join(directory, "Grüße 文件 🎉.txt"), "utf8")).toBe("content");
    });

    it("never replaces and leaves both files alone", () => {
      writeFileSync(join(directory, "new"), "new");
      writeFileSync(join(directory, "old"), "old");
      expect(codeOf(() => load().renameNoReplace(join(directory, "new"), join(directory, "old")))).toBe("EEXIST");
      expect(readFileSync(join(directory, "new"), "utf8")).toBe("new");
      expect(readFileSync(join(directory, "old"), "utf8")).toBe("old");
    });

    it("does not move a file into a directory of the wanted name", () => {
      writeFileSync(join(directory, "new"), "new");
      mkdirSync(join(directory, "taken"));
      expect(codeOf(() => load().renameNoReplace(join(directory, "new"), join(directory, "taken")))).toBe("EEXIST");
      expect(readdirSync(join(directory, "taken"))).toEqual([]);
    });

    it("reports a source that is gone", () => {
      expect(codeOf(() => load().renameNoReplace(join(directory, "gone"), join(directory, "x")))).toBe("ENOENT");
    });
  });

  describe("fsyncDirectory", () => {
    it("accepts a directory", () => {
      expect(codeOf(() => load().fsyncDirectory(directory))).toBe("no error");
    });

    it("reports a missing directory and a file", () => {
      writeFileSync(join(directory, "file"), "");
      expect(codeOf(() => load().fsyncDirectory(join(directory, "gone")))).toBe("ENOENT");
      expect(codeOf(() => load().fsyncDirectory(join(directory, "file")))).toBe("ENOTDIR");
    });
  });

  describe("markQuarantine", () => {
    it("reports a missing file and does not create it", () => {
      expect(codeOf(() => load().markQuarantine(join(directory, "gone"), ORIGIN))).toBe("ENOENT");
      expect(readdirSync(directory)).toEqual([]);
    });

    it.each(["", "a\r\nZoneId=0", "weir://\0", `weir://${"x".repeat(3000)}`])(
      "refuses an origin that is no URL: %j",
      (origin) => {
        const path = join(directory, "file");
        writeFileSync(path, "");
        expect(codeOf(() => load().markQuarantine(path, origin))).toBe("EINVAL");
      },
    );
  });
}
