import { ok } from "#shared/base/result.ts";
import type { RequestOutput, RequestValue } from "#shared/rendezvous/protocol.ts";
import type { Answer, Context } from "./handler.ts";

/**
 * Hands a sealed signal to every connected device of the recipient. Nothing of it is kept. Only between people who watch
 * each other: to everybody else the recipient looks as if it were offline, because "delivered" tells presence as well.
 */
export const sendSignal = async (
  { online, presence, session }: Context,
  { to, sealed }: RequestValue<"signal.send">,
): Promise<Answer<RequestOutput<"signal.send">>> => {
  if (!presence.mutual(session.userId, to)) return ok({ delivered: false });
  const push = { name: "signal", value: { from: session.userId, sealed } } as const;
  const taken = await Promise.all(online.of(to).map((recipient) => recipient.deliverSignal(push)));
  return ok({ delivered: taken.includes(true) });
};
