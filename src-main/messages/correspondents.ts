import type { Contacts } from "../contacts/contacts.ts";
import type { RelationState } from "../store/contacts.ts";
import type { Groups } from "./groups.ts";

/** What the way of messages has to know of people. */
export type Correspondents = Pick<
  Contacts,
  | "relationOf"
  | "isAccepted"
  | "isKeyChanged"
  | "nameOf"
  | "receive"
  | "wrote"
  | "settle"
  | "identityChanged"
  | "startSession"
  | "endInvites"
>;

const FELLOW: RelationState = { kind: "accepted" };

/**
 * Contacts, and those with whom we share a group: the latter are written to, and heard, about groups only; so are those of a
 * group that we forgot, until they have been told that we left it. They are no contacts to anything else (`isAccepted`), and
 * a contact who was blocked stays blocked.
 */
export const correspondentsOf = (contacts: Contacts, groups: Pick<Groups, "isFellow" | "isLeft">): Correspondents => ({
  relationOf: (peer) => contacts.relationOf(peer) ?? (groups.isFellow(peer) || groups.isLeft(peer) ? FELLOW : null),
  isAccepted: (peer) => contacts.isAccepted(peer),
  isKeyChanged: (peer) => contacts.isKeyChanged(peer),
  nameOf: (peer) => contacts.nameOf(peer),
  receive: (peer, content, arrivedAtMs) => contacts.receive(peer, content, arrivedAtMs),
  wrote: (peer) => contacts.wrote(peer),
  settle: () => contacts.settle(),
  identityChanged: (peer) => contacts.identityChanged(peer),
  startSession: (peer, existing) => contacts.startSession(peer, existing),
  endInvites: () => contacts.endInvites(),
});
