import { type RequestName, requests } from "#shared/rendezvous/protocol.ts";
import { getValue, putValue } from "./directory.ts";
import { announceFile, getFile, registerFile } from "./files.ts";
import { type Handler, lockedWrite, once, read, write } from "./handler.ts";
import { createInvite, resolveInvite } from "./invites.ts";
import { fetchBundle, keysStatus, publishKeys } from "./keys.ts";
import { acknowledgeEnvelopes, deferSenders, putEnvelope, wakeAgain } from "./mailbox.ts";
import { watchPresence } from "./presence.ts";
import { keepReceipt, shareReceipts } from "./receipts.ts";
import { acceptRelay, closeRelay, openRelay } from "./relay-requests.ts";
import { operateShare, shareOperations } from "./shares.ts";
import { sendSignal } from "./signals.ts";
import { issueTurn } from "./turn.ts";

/** `login` is the connection's own business. */
export type HandledRequest = Exclude<RequestName, "login">;

/** Requests and who answers them. The number is the cost: uploads and large answers use up more of the general rate. */
export const handlers: Readonly<Record<HandledRequest, Handler>> = {
  "keys.publish": lockedWrite(requests["keys.publish"].input, 10, publishKeys),
  "keys.status": read(requests["keys.status"].input, 1, keysStatus),
  "keys.fetch": lockedWrite(requests["keys.fetch"].input, 5, fetchBundle),
  "mailbox.put": lockedWrite(requests["mailbox.put"].input, 1, putEnvelope, wakeAgain),
  "mailbox.ack": lockedWrite(requests["mailbox.ack"].input, 1, acknowledgeEnvelopes),
  "mailbox.defer": read(requests["mailbox.defer"].input, 2, deferSenders),
  "signal.send": once(requests["signal.send"].input, 1, sendSignal),
  "presence.watch": read(requests["presence.watch"].input, 5, watchPresence),
  "invites.create": lockedWrite(requests["invites.create"].input, 1, createInvite),
  "invites.resolve": lockedWrite(requests["invites.resolve"].input, 1, resolveInvite),
  "files.register": write(requests["files.register"].input, 5, registerFile),
  "files.get": read(requests["files.get"].input, 2, getFile),
  "files.announce": write(requests["files.announce"].input, 1, announceFile),
  "files.operate": write(requests["files.operate"].input, 5, operateShare),
  "files.operations": read(requests["files.operations"].input, 2, shareOperations),
  "files.receipt": write(requests["files.receipt"].input, 2, keepReceipt),
  "files.receipts": read(requests["files.receipts"].input, 2, shareReceipts),
  turn: read(requests.turn.input, 1, issueTurn),
  "directory.put": lockedWrite(requests["directory.put"].input, 2, putValue),
  "directory.get": read(requests["directory.get"].input, 1, getValue),
  // Repeats are recognised by the relay's id: one that comes over a new connection must count for that one.
  "relay.open": read(requests["relay.open"].input, 5, openRelay),
  "relay.accept": read(requests["relay.accept"].input, 1, acceptRelay),
  "relay.close": read(requests["relay.close"].input, 1, closeRelay),
};

export const handlerOf = (name: string): Handler | undefined =>
  Object.hasOwn(handlers, name) ? handlers[name as HandledRequest] : undefined;
