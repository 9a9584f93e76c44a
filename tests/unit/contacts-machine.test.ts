import { describe, expect, test } from "vitest";
import { type Contact, type ContactEvent, step } from "../../src-main/contacts/contact-machine.ts";

type Name = "none" | "outgoing" | "incoming" | "accepted" | "blocked";
const contactOf = (name: Name): Contact => {
  if (name === "none") return { kind: "none" };
  const relation = name === "blocked" ? ({ kind: "blocked", before: "accepted" } as const) : { kind: name };
  return { kind: "known", relation, trust: "unverified" };
};
const nameOf = (contact: Contact): Name => (contact.kind === "none" ? "none" : contact.relation.kind);

const run = (name: Name, type: Exclude<ContactEvent["type"], "verified">): string => {
  const [after, effects] = step(contactOf(name), { type });
  return [nameOf(after), ...effects.map((e) => (e.type === "refuse" ? `refuse ${e.reason}` : e.type))].join(" ");
};

/** The table of the machine's head comment, literally. */
const table: Record<Name, Record<Exclude<ContactEvent["type"], "verified" | "identityChanged">, string>> = {
  none: {
    inviteAccepted: "outgoing sendRequest",
    requested: "incoming",
    peerAccepted: "none ignore",
    userAccepted: "none refuse unknown_contact",
    blocked: "none refuse unknown_contact",
    unblocked: "none refuse unknown_contact",
    tampered: "none ignore",
    removed: "none refuse unknown_contact",
  },
  outgoing: {
    inviteAccepted: "outgoing sendRequest",
    requested: "accepted sendAccept",
    peerAccepted: "accepted",
    userAccepted: "outgoing refuse waiting_for_contact",
    blocked: "blocked",
    unblocked: "outgoing",
    tampered: "none warnTampered forget",
    removed: "none forget",
  },
  incoming: {
    inviteAccepted: "accepted sendAccept",
    requested: "incoming",
    peerAccepted: "incoming ignore",
    userAccepted: "accepted sendAccept",
    blocked: "blocked",
    unblocked: "incoming",
    tampered: "incoming ignore",
    removed: "none forget",
  },
  accepted: {
    inviteAccepted: "accepted sendRequest",
    requested: "accepted sendAccept",
    peerAccepted: "accepted",
    userAccepted: "accepted",
    blocked: "blocked",
    unblocked: "accepted",
    tampered: "none warnTampered forget",
    removed: "none forget",
  },
  blocked: {
    inviteAccepted: "blocked refuse contact_blocked",
    requested: "blocked ignore",
    peerAccepted: "blocked ignore",
    userAccepted: "blocked refuse contact_blocked",
    blocked: "blocked",
    unblocked: "accepted restartStream",
    tampered: "blocked ignore",
    removed: "none forget",
  },
};

describe("relation", () => {
  for (const [name, row] of Object.entries(table) as [Name, (typeof table)[Name]][])
    test.each(Object.entries(row) as [keyof typeof row, string][])(`${name} + %s`, (event, expected) => {
      expect(run(name, event)).toBe(expected);
    });

  test("unblocking brings back what was before", () => {
    for (const name of ["outgoing", "incoming", "accepted"] as const) {
      const [blocked] = step(contactOf(name), { type: "blocked" });
      expect(nameOf(step(blocked, { type: "unblocked" })[0])).toBe(name);
    }
  });
});

describe("trust", () => {
  const changed: Contact = { kind: "known", relation: { kind: "accepted" }, trust: "changed" };
  test("the user verifies, and takes it back", () => {
    const [verified] = step(contactOf("accepted"), { type: "verified", verified: true });
    expect(verified).toMatchObject({ trust: "verified" });
    expect(step(verified, { type: "verified", verified: false })[0]).toMatchObject({ trust: "unverified" });
  });
  test("another key ends it, and cannot be verified before it is accepted", () => {
    const [verified] = step(contactOf("accepted"), { type: "verified", verified: true });
    expect(step(verified, { type: "identityChanged" })[0]).toEqual(changed);
    expect(step(changed, { type: "verified", verified: true })).toEqual([
      changed,
      [{ type: "refuse", reason: "key_changed" }],
    ]);
  });
  test("accepting the key leaves the contact unverified", () => {
    expect(step(changed, { type: "userAccepted" })).toEqual([contactOf("accepted"), [{ type: "acceptIdentity" }]]);
  });
  test("accepting a request whose key changed does both", () => {
    const incoming: Contact = { kind: "known", relation: { kind: "incoming" }, trust: "changed" };
    expect(step(incoming, { type: "userAccepted" })).toEqual([
      contactOf("accepted"),
      [{ type: "acceptIdentity" }, { type: "sendAccept" }],
    ]);
  });
  test("a contact that has not answered can have its key accepted too", () => {
    const outgoing: Contact = { kind: "known", relation: { kind: "outgoing" }, trust: "changed" };
    expect(step(outgoing, { type: "userAccepted" })).toEqual([contactOf("outgoing"), [{ type: "acceptIdentity" }]]);
  });
});
