import { RateLimiterRedis } from "rate-limiter-flexible";
import type { Env } from "#shared/base/env.ts";
import { Nodes } from "./cluster/nodes.ts";
import { RedisBus } from "./cluster/redis-bus.ts";
import { openPostgres } from "./postgres.ts";
import { memoryLimiter } from "./rates.ts";
import type { Shared, SharedEngine } from "./server.ts";

export interface DistributedOptions {
  /** `postgres://user:password@host:port/database` */
  readonly database: string;
  /** `redis://user:password@host:port`, `rediss://` with TLS */
  readonly redis: string;
}

/** PostgreSQL keeps everything, Redis carries messages between the nodes and counts rates. */
export const distributedEngine = ({ database, redis }: DistributedOptions): SharedEngine => ({
  openStore: (env) => openPostgres(database, env),
  join: (serverId, env) => join(redis, serverId, env),
});

const join = async (url: string, serverId: string, env: Env): Promise<Shared> => {
  const bus = await RedisBus.connect(url, serverId, env);
  return {
    cluster: new Nodes(bus, env),
    limiter: (name, points, durationMs) =>
      new RateLimiterRedis({
        storeClient: bus.commands,
        useRedisPackage: true,
        rejectIfRedisNotReady: true,
        keyPrefix: `weir:${serverId}:rate:${name}`,
        points,
        duration: durationMs / 1000,
        // Without Redis each node counts for itself.
        insuranceLimiter: memoryLimiter(name, points, durationMs),
      }),
  };
};
