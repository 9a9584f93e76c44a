import * as v from "valibot";
import { type Disposable, DisposableStore, toDisposable } from "#shared/base/disposable.ts";
import type { Env } from "#shared/base/env.ts";
import { type UserId, UserIdSchema } from "#shared/base/ids.ts";
import type { Contacts } from "./contacts/contacts.ts";
import type { Sessions } from "./crypto/sessions.ts";
import { LanDiscovery } from "./links/lan-discovery.ts";
import type { OpenLanSocket } from "./links/lan-socket.ts";
import type { Links } from "./links/links.ts";
import { effectivePolicy } from "./links/network-policy.ts";
import { NetworkWatch } from "./links/network-watch.ts";
import type { Settings } from "./settings.ts";
import type { ContactNetworkTable } from "./store/contact-network.ts";

export interface LocalNetworkDeps {
  readonly env: Env;
  readonly self: UserId;
  readonly settings: Pick<Settings, "get" | "onChanged">;
  readonly contacts: Pick<Contacts, "userIds" | "isAccepted" | "isKeyChanged" | "onChanged">;
  readonly contactNetwork: Pick<ContactNetworkTable, "get">;
  readonly sessions: Pick<Sessions, "pairwiseSecret">;
  readonly links: Pick<Links, "presenceHint">;
  /** The real ones by default. */
  readonly openSocket?: OpenLanSocket | undefined;
  readonly interfaces?: (() => readonly string[]) | undefined;
}

export interface LocalNetwork extends Disposable {
  /** The contact's network policy is another one. */
  policyChanged(peer: UserId): void;
}

/**
 * Runs discovery on the local network for as long as the user wants it. A contact that is found there is linked at once,
 * without waiting for the backoff or for the server's word that it is online.
 */
export const followLocalNetwork = (deps: LocalNetworkDeps): LocalNetwork => {
  const { env, self, settings, contacts, contactNetwork, sessions, links, openSocket, interfaces } = deps;
  const owned = new DisposableStore();
  const linkable = new Set<UserId>();
  /** Somebody who may see nothing but the relay does not learn here where we are either. */
  const mayFind = (peer: UserId): boolean => {
    const { policy, acceptedByMe } = contactNetwork.get(peer);
    return (
      contacts.isAccepted(peer) && !contacts.isKeyChanged(peer) && effectivePolicy(policy, acceptedByMe) !== "relay"
    );
  };
  const discovery = owned.add(
    new LanDiscovery({
      env,
      self,
      // Every attempt of a link has its own port.
      port: 0,
      openSocket,
      interfaces,
      *peers() {
        for (const peer of linkable) {
          const secret = sessions.pairwiseSecret(peer);
          if (secret !== null && mayFind(peer)) yield { peer, secret };
        }
      },
    }),
  );
  owned.add(discovery.onFound(({ peer }) => links.presenceHint(peer, true)));

  const follow = (peer: UserId): void => {
    if (mayFind(peer) === linkable.has(peer)) return;
    if (!linkable.delete(peer)) linkable.add(peer);
    discovery.renew();
  };
  for (const peer of contacts.userIds()) follow(peer);
  owned.add(contacts.onChanged(({ userId }) => follow(v.parse(UserIdSchema, userId))));

  let watch: Disposable | null = null;
  owned.add(toDisposable(() => watch?.dispose()));
  const apply = (wanted: boolean): void => {
    if (wanted === (watch !== null)) return;
    watch?.dispose();
    watch = wanted ? new NetworkWatch(env, () => discovery.renew()) : null;
    if (wanted) discovery.start();
    else discovery.stop();
  };
  apply(settings.get().lanDiscovery);
  owned.add(settings.onChanged(({ lanDiscovery }) => apply(lanDiscovery)));
  return { policyChanged: follow, dispose: () => owned.dispose() };
};
