import { CLUSTER_CALL_TIMEOUT_MS } from "#shared/base/limits.ts";
import { ok } from "#shared/base/result.ts";
import type { RequestOutput, RequestValue } from "#shared/rendezvous/protocol.ts";
import type { Answer, Context } from "./handler.ts";

/**
 * Hands a sealed signal to every connected device of the recipient. Nothing of it is kept. Only between people who watch
 * each other: to everybody else the recipient looks as if it were offline, because "delivered" tells presence as well.
 */
export const sendSignal = async (
  { cluster, online, presence, session }: Context,
  { to, sealed }: RequestValue<"signal.send">,
): Promise<Answer<RequestOutput<"signal.send">>> => {
  if (!presence.mutual(session.userId, to)) return ok({ delivered: false });
  const push = { name: "signal", value: { from: session.userId, sealed } } as const;
  const here = online.of(to).map((recipient) => recipient.deliverSignal(push));
  const call = { type: "signal", to, push } as const;
  const elsewhere = cluster.nodesOf(to).map((nodeId) => cluster.call(nodeId, call, CLUSTER_CALL_TIMEOUT_MS));
  const taken = await Promise.all([...here, ...elsewhere]);
  return ok({ delivered: taken.includes(true) });
};
