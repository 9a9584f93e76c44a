import { expect, test } from "vitest";
import { redactor } from "../../src-main/redact.ts";

const ALICE = "a".repeat(32);
const BOB = "b".repeat(32);
const STRANGER = `${"c".repeat(30)}77`;

test("a report keeps its shape and numbers, and loses names, ids, addresses and paths wherever they are", () => {
  const redact = redactor({
    userIds: [ALICE, BOB],
    fileIds: ["F".repeat(22)],
    names: ["Bob", "Bob Lindqvist", "tax 2026.pdf", "Al"],
  });
  expect(
    redact({
      version: "0.1.0",
      node: "v24.21.0",
      peer: BOB,
      known: { self: ALICE, file: "F".repeat(22), rtt: 12, none: null, is: true },
      log: [
        `link to ${BOB} lost, then to ${STRANGER}, then ${STRANGER}`,
        "Bob Lindqvist sent tax 2026.pdf to /home/bob/Downloads/tax.pdf",
        "candidate 192.168.1.17:4433 and fe80::1ff:fe23:4567:890a and 2001:db8:0:1:1:1:1:1",
        "server wss://meet.example.org:443/socket at 12:41:07",
        "C:\\Users\\bob\\x.txt",
      ],
    }),
  ).toEqual({
    version: "0.1.0",
    node: "v24.21.0",
    peer: "p2",
    known: { self: "p1", file: "f1", rtt: 12, none: null, is: true },
    log: [
      "link to p2 lost, then to p3, then p3",
      "[name] sent [name] to [path]",
      "candidate [address]:4433 and [address] and [address]",
      "server wss://[address]/socket at 12:41:07",
      "[path]",
    ],
  });
});
