import { assertNever } from "#shared/base/assert.ts";
import type { OpenRelation, RelationState, Trust } from "../store/contacts.ts";

/**
 * What two people are to each other. Both must agree before anything but pairing passes between them.
 *
 * | relation \ event | inviteAccepted      | requested             | peerAccepted | userAccepted          | blocked | unblocked | tampered |
 * |------------------|---------------------|-----------------------|--------------|-----------------------|---------|-----------|----------|
 * | none             | outgoing, request   | incoming              | ignored      | refused               | refused | refused   | ignored  |
 * | outgoing         | outgoing, request   | accepted, answer      | accepted     | refused (their turn)  | blocked | no change | removed  |
 * | incoming         | accepted, answer    | incoming              | ignored      | accepted, answer      | blocked | no change | ignored  |
 * | accepted         | accepted, request   | accepted, answer      | accepted     | no change             | blocked | no change | removed  |
 * | blocked          | refused             | ignored               | ignored      | refused               | blocked | before    | ignored  |
 *
 * `inviteAccepted`: we used an invitation of theirs. `requested`: they used one of ours and proved it. `peerAccepted`: they
 * said so, or wrote to us. In `outgoing` the second of these makes mutual invitations converge. In `accepted` a further
 * request is sent, or answered, because the other side may have removed us since.
 *
 * Trust stands beside the relation: unverified -> verified by the user; any -> changed when another identity key is seen;
 * changed -> unverified when the user accepts it (`userAccepted`).
 */
export type Contact =
  | { readonly kind: "none" }
  | { readonly kind: "known"; readonly relation: RelationState; readonly trust: Trust };

export type ContactEvent =
  | { readonly type: "inviteAccepted" }
  | { readonly type: "requested" }
  | { readonly type: "peerAccepted" }
  | { readonly type: "userAccepted" }
  | { readonly type: "blocked" }
  | { readonly type: "unblocked" }
  | { readonly type: "verified"; readonly verified: boolean }
  | { readonly type: "identityChanged" }
  /** The inviter's commitment does not fit what it revealed. */
  | { readonly type: "tampered" }
  | { readonly type: "removed" };

export type Refusal = "unknown_contact" | "waiting_for_contact" | "contact_blocked" | "key_changed";

export type ContactEffect =
  | { readonly type: "sendRequest" }
  | { readonly type: "sendAccept" }
  | { readonly type: "acceptIdentity" }
  /** What was dropped while blocked left a hole in the sender's numbers: start from the next one. */
  | { readonly type: "restartStream" }
  | { readonly type: "forget" }
  | { readonly type: "warnTampered" }
  /** The peer asked for something that has no place here: counted, nothing else. */
  | { readonly type: "ignore" }
  | { readonly type: "refuse"; readonly reason: Refusal };

type Outcome = readonly [Contact, readonly ContactEffect[]];
type Known = Extract<Contact, { kind: "known" }>;

const IGNORE = { type: "ignore" } as const;
const refuse = (contact: Contact, reason: Refusal): Outcome => [contact, [{ type: "refuse", reason }]];

const become = (contact: Known, relation: OpenRelation, ...effects: ContactEffect[]): Outcome => [
  { ...contact, relation: { kind: relation } },
  effects,
];

const stepNone = (event: ContactEvent): Outcome => {
  const none: Contact = { kind: "none" };
  switch (event.type) {
    case "inviteAccepted":
      return [{ kind: "known", relation: { kind: "outgoing" }, trust: "unverified" }, [{ type: "sendRequest" }]];
    case "requested":
      return [{ kind: "known", relation: { kind: "incoming" }, trust: "unverified" }, []];
    case "peerAccepted":
    case "tampered":
    case "identityChanged":
      return [none, [IGNORE]];
    case "userAccepted":
    case "blocked":
    case "unblocked":
    case "verified":
    case "removed":
      return refuse(none, "unknown_contact");
    default:
      return assertNever(event);
  }
};

const onInviteAccepted = (contact: Known): Outcome => {
  switch (contact.relation.kind) {
    case "outgoing":
    case "accepted":
      return [contact, [{ type: "sendRequest" }]];
    case "incoming":
      return become(contact, "accepted", { type: "sendAccept" });
    case "blocked":
      return refuse(contact, "contact_blocked");
    default:
      return assertNever(contact.relation);
  }
};

const onRequested = (contact: Known): Outcome => {
  switch (contact.relation.kind) {
    case "outgoing":
    case "accepted":
      return become(contact, "accepted", { type: "sendAccept" });
    case "incoming":
      return [contact, []];
    case "blocked":
      return [contact, [IGNORE]];
    default:
      return assertNever(contact.relation);
  }
};

const onUserAccepted = (contact: Known): Outcome => {
  if (contact.relation.kind === "blocked") return refuse(contact, "contact_blocked");
  const identity: ContactEffect[] = contact.trust === "changed" ? [{ type: "acceptIdentity" }] : [];
  const trusted: Known = identity.length > 0 ? { ...contact, trust: "unverified" } : contact;
  switch (contact.relation.kind) {
    case "outgoing":
      return identity.length > 0 ? [trusted, identity] : refuse(contact, "waiting_for_contact");
    case "incoming":
      return become(trusted, "accepted", ...identity, { type: "sendAccept" });
    case "accepted":
      return [trusted, identity];
    default:
      return assertNever(contact.relation);
  }
};

export const step = (contact: Contact, event: ContactEvent): Outcome => {
  if (contact.kind === "none") return stepNone(event);
  const { relation } = contact;
  switch (event.type) {
    case "inviteAccepted":
      return onInviteAccepted(contact);
    case "requested":
      return onRequested(contact);
    case "peerAccepted":
      if (relation.kind === "outgoing") return become(contact, "accepted");
      return [contact, relation.kind === "accepted" ? [] : [IGNORE]];
    case "userAccepted":
      return onUserAccepted(contact);
    case "blocked":
      if (relation.kind === "blocked") return [contact, []];
      return [{ ...contact, relation: { kind: "blocked", before: relation.kind } }, []];
    case "unblocked":
      if (relation.kind !== "blocked") return [contact, []];
      return become(contact, relation.before, { type: "restartStream" });
    case "verified":
      if (contact.trust === "changed") return refuse(contact, "key_changed");
      return [{ ...contact, trust: event.verified ? "verified" : "unverified" }, []];
    case "identityChanged":
      return [{ ...contact, trust: "changed" }, []];
    case "tampered":
      if (relation.kind === "outgoing" || relation.kind === "accepted")
        return [{ kind: "none" }, [{ type: "warnTampered" }, { type: "forget" }]];
      return [contact, [IGNORE]];
    case "removed":
      return [{ kind: "none" }, [{ type: "forget" }]];
    default:
      return assertNever(event);
  }
};
