import { describe, expect, it } from "vitest";
import { judgeMailbox, type MailboxEvent } from "../support/mailbox-history.ts";

const stored = (id: string, number: number): MailboxEvent => ({ type: "stored", id, sender: "a", number });
const pushed = (id: string, connection = 1): MailboxEvent => ({ type: "pushed", id, connection });
const acknowledged = (id: string): MailboxEvent => ({ type: "acknowledged", id });
const good = { lost: [], again: [], early: [] };

describe("the judge of mailboxes", () => {
  it("accepts what comes again over a new connection until it is acknowledged", () => {
    const events = [stored("x", 1), stored("y", 2), pushed("x"), pushed("x", 2), acknowledged("x"), pushed("y", 2)];
    expect(judgeMailbox(events)).toEqual(good);
  });

  it("finds what is lost, comes again, or comes early", () => {
    expect(judgeMailbox([stored("x", 1)])).toEqual({ ...good, lost: ["x"] });
    expect(judgeMailbox([stored("x", 1), pushed("x"), acknowledged("x"), pushed("x", 2)])).toEqual({
      ...good,
      again: ["x"],
    });
    expect(judgeMailbox([stored("x", 1), pushed("x"), pushed("x")])).toEqual({ ...good, again: ["x"] });
    expect(judgeMailbox([stored("x", 1), stored("y", 2), pushed("y"), pushed("x")])).toEqual({ ...good, early: ["x"] });
  });
});
