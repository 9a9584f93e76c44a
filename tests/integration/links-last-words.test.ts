import { fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { counted } from "../support/counts.ts";
import type { LastWords } from "../support/links-last-words.ts";
import { linksOver, type Wire } from "../support/links-peer-process.ts";
import { untilConnected, untilView } from "../support/links-world.ts";

const script = fileURLToPath(new URL("../support/links-last-words.ts", import.meta.url));
const RUNS = counted(5, 500);

test("a process that sends and ends in the same moment loses nothing and ends by itself", async () => {
  let all = 0;
  for (let run = 0; run < RUNS; run += 1) {
    const child = fork(script, [], { execArgv: [] });
    const { links, heard, peer } = linksOver(0, (wire) => void (child.connected && child.send(wire)));
    try {
      const said = Promise.withResolvers<LastWords>();
      child.on("message", (message: Wire | { words: LastWords }) =>
        "words" in message ? said.resolve(message.words) : heard(message),
      );
      const exit = once(child, "exit");
      const got = { messages: 0, bulkBytes: 0 };
      links.onMessage(() => {
        got.messages += 1;
      });
      links.onBulk(({ bytes }) => {
        got.bulkBytes += bytes;
      });
      links.enable();
      links.connect(peer);
      await untilConnected(links, peer);
      const [code] = await exit;
      const words = await said.promise;
      await untilView(links, peer, ({ state }) => state !== "connected");
      expect({ run, code, ...got }).toEqual({ run, code: 0, ...words });
      expect(words.bulkBytes).toBeGreaterThan(1024 * 1024);
      all += got.bulkBytes;
    } finally {
      links.dispose();
      child.kill("SIGKILL");
    }
  }
  process.stdout.write(
    `send and end at once: ${RUNS} of ${RUNS}, ${Math.round(all / 1024 / 1024)} MiB, nothing lost\n`,
  );
});
