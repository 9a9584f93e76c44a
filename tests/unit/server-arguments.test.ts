import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { RELAY_BYTES_PER_SECOND, RELAY_TOTAL_BYTES_PER_SECOND } from "#shared/base/limits.ts";
import { readArguments } from "../../src-server/arguments.ts";
import { temporaryFolder } from "../support/files.ts";

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let secretFile: string;
beforeEach(async () => {
  folder = await temporaryFolder();
  secretFile = join(folder.path, "secret");
  writeFileSync(secretFile, "north\n");
});
afterEach(() => folder.dispose());

const data = ["--data", "x"];

describe("the arguments of the server", () => {
  it("have defaults: no STUN, no TURN, a relay without a quota", () => {
    expect(readArguments(data, {})).toEqual({
      data: "x",
      metricsToken: null,
      host: "127.0.0.1",
      port: 0,
      trustProxy: false,
      logLevel: "info",
      ice: { stunUrls: [], turn: null },
      relay: {
        enabled: true,
        bytesPerSecond: RELAY_BYTES_PER_SECOND,
        totalBytesPerSecond: RELAY_TOTAL_BYTES_PER_SECOND,
        dailyBytes: null,
        monthlyBytes: null,
      },
    });
  });

  it("name STUN and TURN servers, and the relay's bounds", () => {
    const ice = ["--stun-url", "stun:a:1", "--stun-url", "stun:b:2", "--turn-url", "turn:c:3", "--turn-secret-file"];
    const relay = [
      "--no-relay",
      "--relay-rate",
      "100",
      "--relay-total",
      "200",
      "--relay-daily",
      "5",
      "--relay-monthly",
      "60",
    ];
    expect(readArguments([...data, ...ice, secretFile, ...relay], {})).toMatchObject({
      ice: { stunUrls: ["stun:a:1", "stun:b:2"], turn: { urls: ["turn:c:3"], secret: "north" } },
      relay: {
        enabled: false,
        bytesPerSecond: 102_400,
        totalBytesPerSecond: 204_800,
        dailyBytes: 5_242_880,
        monthlyBytes: 62_914_560,
      },
    });
  });

  it("can come from the environment, and a flag counts more", () => {
    const env = { WEIR_STUN_URL: "stun:a:1,stun:b:2", WEIR_TURN_URL: "turn:c:3", WEIR_TURN_SECRET_FILE: secretFile };
    expect(readArguments(data, env).ice).toEqual({
      stunUrls: ["stun:a:1", "stun:b:2"],
      turn: { urls: ["turn:c:3"], secret: "north" },
    });
    expect(readArguments([...data, "--stun-url", "stun:d:4"], env).ice.stunUrls).toEqual(["stun:d:4"]);
  });

  it("say in words what is wrong, and never the secret", () => {
    const empty = join(folder.path, "empty");
    writeFileSync(empty, " \n");
    const wrong: [string[], string][] = [
      [["--stun-url", "turn:a:1"], "--stun-url must look like"],
      [["--turn-url", "turn:[::1]:1", "--turn-secret-file", secretFile], "--turn-url must look like"],
      [["--turn-url", "turn:u:p@a:1", "--turn-secret-file", secretFile], "--turn-url must look like"],
      [["--turn-url", "turn:a:1"], "--turn-url needs a --turn-secret-file"],
      [["--turn-secret-file", secretFile], "--turn-secret-file needs a --turn-url"],
      [["--turn-url", "turn:a:1", "--turn-secret-file", join(folder.path, "none")], "cannot be read"],
      [["--turn-url", "turn:a:1", "--turn-secret-file", empty], "--turn-secret-file is empty"],
      [Array(9).fill(["--stun-url", "stun:a:1"]).flat(), "at most"],
      [["--relay-rate", "0"], "--relay-rate must be"],
      [["--relay-daily", "1e3"], "--relay-daily must be"],
      [["--relay-monthly", "-1"], "relay-monthly"],
    ];
    for (const [args, words] of wrong) expect(() => readArguments([...data, ...args], {})).toThrow(words);
    for (const [args] of wrong) expect(() => readArguments([...data, ...args], {})).not.toThrow("north");
  });

  it("select PostgreSQL and Redis together, or neither", () => {
    const database = "postgres://weir@db/weir";
    const redis = "redis://cache:6379";
    expect(readArguments(["--database", database, "--redis", redis], {})).toMatchObject({ data: { database, redis } });
    const env = { WEIR_DATABASE: database, WEIR_REDIS: redis };
    expect(readArguments([], env)).toMatchObject({ data: { database, redis } });
    expect(readArguments(data, env)).toMatchObject({ data: "x" });
    const refused = (...args: string[]) => expect(() => readArguments(args, {}));
    refused("--database", database).toThrow("--database needs --redis");
    refused("--redis", redis).toThrow("--redis needs --database");
    refused(...data, "--database", database, "--redis", redis).toThrow("leave it out with --database");
    refused("--database", "mysql://x", "--redis", redis).toThrow("must look like postgres://");
    refused("--database", database, "--redis", "cache:6379").toThrow("must look like redis://");
  });

  it("take the token of the metrics from a file", () => {
    expect(readArguments([...data, "--metrics-token-file", secretFile], {}).metricsToken).toBe("north");
    expect(() => readArguments([...data, "--metrics-token-file", "/nowhere"], {})).toThrow("cannot be read");
  });
});
