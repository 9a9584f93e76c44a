import { appendFileSync } from "node:fs";
import { toBase64Url } from "#shared/base/bytes.ts";
import { chatIdOf, type MessageId } from "#shared/base/ids.ts";
import { createActivity } from "../../src-main/activity/activity.ts";
import { systemRandom } from "../../src-main/env.ts";
import { Database } from "../../src-main/store/database.ts";
import { MessagesTable } from "../../src-main/store/messages.ts";
import { appMigrations } from "../../src-main/store/schema/app.ts";
import { allGuards, PEERS, SELF } from "./activity-world.ts";
import { realEnv } from "./files.ts";

/**
 * `activity-child.ts DATABASE REPORT`: stores messages without end, and takes them up at the same time, until it is
 * killed. In REPORT it writes what the start found.
 */
const [, , path = "", report = ""] = process.argv;
const db = Database.openApp(path, new Uint8Array(32).fill(7), appMigrations);
const activity = createActivity({ env: realEnv, db, self: SELF, guards: () => allGuards });
const messages = new MessagesTable(db);
const check = await activity.check(false);
appendFileSync(report, `${JSON.stringify(check.ok ? check.value : check.error)}\n`);

const store = (): void =>
  db.transaction(() => {
    for (let i = 0; i < 40; i++) {
      const peer = PEERS[Math.floor(systemRandom.number() * PEERS.length)] ?? SELF;
      messages.insert({
        chatId: chatIdOf(peer),
        messageId: toBase64Url(systemRandom.bytes(16)) as MessageId,
        senderId: peer,
        sentAtMs: Date.now(),
        text: "",
        fileId: null,
        state: "delivered",
      });
    }
  });

process.stdout.write("ready\n");
for (;;) {
  store();
  const run = activity.run();
  store();
  await run;
  await new Promise((resolve) => setImmediate(resolve));
}
