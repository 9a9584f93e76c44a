import type { UserId } from "#shared/base/ids.ts";
import type { Push } from "#shared/rendezvous/protocol.ts";
import type { Services } from "./handler.ts";

/** To the devices of this user, or one of them, that are connected, at whatever node. Whoever is not misses it. */
export const pushTo = (
  { online, cluster }: Pick<Services, "online" | "cluster">,
  userId: UserId,
  push: Push,
  deviceId: number | null = null,
): void => {
  for (const session of online.of(userId)) {
    if (deviceId === null || session.deviceId === deviceId) session.push(push);
  }
  for (const nodeId of cluster.nodesOf(userId)) cluster.send(nodeId, { type: "push", userId, deviceId, push });
};
