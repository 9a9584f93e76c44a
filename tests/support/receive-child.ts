import { ChatWorld } from "./chat-world.ts";
import { acknowledge, loadMailbox } from "./mailbox-file.ts";

/**
 * Receives Bob's mailbox in a process of its own and kills itself at the `hit`th time that `point` is reached. `durable`: it
 * waits for the disk.
 */
const [folder = "", mailbox = "", acked = "", point = "never", hit = "0", durable] = process.argv.slice(2);
const world = new ChatWorld({ crypto: "signal", folder, seed: process.pid, durable: durable === "durable" });
const bob = await world.join("Bob");
let left = Number(hit);
bob.checkpoint = (reached) => {
  if (reached !== point) return;
  left -= 1;
  if (left === 0) process.kill(process.pid, "SIGKILL");
};
for (const envelope of loadMailbox(mailbox, acked)) {
  if ((await bob.handle(envelope)) === "ack") acknowledge(acked, envelope.id);
}
bob.kill();
