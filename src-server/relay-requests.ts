import type { RequestOutput, RequestValue } from "#shared/rendezvous/protocol.ts";
import type { Answer, Context } from "./handler.ts";

export const openRelay = (
  { relays, session }: Context,
  { relayId, to }: RequestValue<"relay.open">,
): Promise<Answer<RequestOutput<"relay.open">>> => relays.open(session, relayId, to);

export const acceptRelay = (
  { relays, session }: Context,
  { relayId, from }: RequestValue<"relay.accept">,
): Promise<Answer<RequestOutput<"relay.accept">>> => relays.accept(session, relayId, from);

export const closeRelay = async (
  { relays, session }: Context,
  { relayId }: RequestValue<"relay.close">,
): Promise<Answer<RequestOutput<"relay.close">>> => relays.close(session, relayId);
