import type { UserId } from "#shared/base/ids.ts";
import type { NetworkPolicy } from "#shared/ipc/views.ts";
import type { Database } from "./database.ts";

export interface ContactNetwork {
  readonly policy: NetworkPolicy;
  readonly acceptedByMe: boolean;
}

/** How links to each contact may travel. */
export class ContactNetworkTable {
  readonly #get;
  readonly #setPolicy;
  readonly #setAccepted;

  constructor({ sql }: Database) {
    this.#get = sql.prepare<[string], { policy: NetworkPolicy; accepted_by_me: number }>(
      "SELECT policy, accepted_by_me FROM contact_network WHERE user_id = ?",
    );
    this.#setPolicy = sql.prepare<[string, NetworkPolicy]>(
      "INSERT INTO contact_network (user_id, policy) VALUES (?, ?) ON CONFLICT (user_id) DO UPDATE SET policy = excluded.policy",
    );
    this.#setAccepted = sql.prepare<[string]>(
      "INSERT INTO contact_network (user_id, accepted_by_me) VALUES (?, 1) ON CONFLICT (user_id) DO UPDATE SET accepted_by_me = 1",
    );
  }

  get(userId: UserId): ContactNetwork {
    const row = this.#get.get(userId);
    return { policy: row?.policy ?? "direct", acceptedByMe: row?.accepted_by_me === 1 };
  }

  /** @throws SqliteError when there is no such contact. */
  setPolicy(userId: UserId, policy: NetworkPolicy): void {
    this.#setPolicy.run(userId, policy);
  }

  /** @throws SqliteError when there is no such contact. */
  setAccepted(userId: UserId): void {
    this.#setAccepted.run(userId);
  }
}
