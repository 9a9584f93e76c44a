import * as v from "valibot";
import { type Disposable, DisposableStore } from "#shared/base/disposable.ts";
import type { Env } from "#shared/base/env.ts";
import type { UserId } from "#shared/base/ids.ts";
import { UserIdSchema } from "#shared/base/ids.ts";
import { messageOf } from "#shared/base/result.ts";
import type { Contacts } from "./contacts/contacts.ts";
import type { Sessions } from "./crypto/sessions.ts";
import type { Links } from "./links/links.ts";
import type { Signaling } from "./signaling/signaling.ts";

interface UpkeepDeps {
  readonly env: Env;
  readonly signaling: Signaling;
  readonly sessions: Sessions;
  readonly contacts: Contacts;
  readonly links: Links;
}

/** Keys are looked after this often besides every login, so that a rotation is not missed by a client that stays online. */
const KEY_CHECK_INTERVAL_MS = 60 * 60 * 1000;
/** A failed publication is repeated after this long; a login or a `keysLow` push comes sooner most of the time. */
const KEY_RETRY_MS = 30_000;

/**
 * What holds for as long as the app runs: our keys are at the server, we watch exactly the accepted contacts, and there
 * is a link to each of them that is wanted whenever both are online.
 */
export const startUpkeep = (deps: UpkeepDeps): Disposable => {
  const { env, signaling, sessions, contacts, links } = deps;
  const log = env.log.child("upkeep");
  const owned = new DisposableStore();
  const wanted = new Set<UserId>();
  let keyTimer: Disposable | null = null;
  let keysBusy = false;
  let disposed = false;

  const checkKeysIn = (delayMs: number): void => {
    keyTimer?.dispose();
    if (!disposed) keyTimer = env.clock.setTimer(delayMs, () => run("keys", checkKeys));
  };

  const checkKeys = async (): Promise<void> => {
    if (keysBusy || signaling.state.state !== "connected") return;
    keysBusy = true;
    try {
      checkKeysIn((await publishKeys()) ? KEY_CHECK_INTERVAL_MS : KEY_RETRY_MS);
    } finally {
      keysBusy = false;
    }
  };

  const publishKeys = async (): Promise<boolean> => {
    const status = await signaling.request("keys.status", {});
    if (!status.ok) return false;
    const keys = await sessions.keysToPublish(status.value);
    const answer = await signaling.request("keys.publish", keys);
    if (!answer.ok) {
      log.warn("keys were not published", { type: answer.error.type });
      return false;
    }
    sessions.published(keys);
    return true;
  };

  const accepted = (): UserId[] =>
    contacts
      .list()
      .filter((contact) => contact.state === "accepted")
      .map((contact) => v.parse(UserIdSchema, contact.userId));

  const watch = async (): Promise<void> => {
    if (signaling.state.state !== "connected") return;
    const { generation } = signaling;
    const answer = await signaling.request("presence.watch", { userIds: accepted() });
    if (!answer.ok || generation !== signaling.generation) return;
    for (const text of answer.value.online) {
      const userId = v.safeParse(UserIdSchema, text);
      if (userId.success) setOnline(userId.output, true);
    }
  };

  const setOnline = (userId: UserId, online: boolean): void => {
    contacts.setOnline(userId, online);
    links.presenceHint(userId, online);
  };

  /** True when the set of accepted contacts is another one than before. */
  const followContacts = (): boolean => {
    const now = new Set(accepted());
    const gone = [...wanted].filter((userId) => !now.has(userId));
    const added = [...now].filter((userId) => !wanted.has(userId));
    for (const userId of gone) {
      wanted.delete(userId);
      run("disconnect", () => links.disconnect(userId));
    }
    for (const userId of added) {
      wanted.add(userId);
      links.connect(userId);
    }
    return gone.length + added.length > 0;
  };

  const run = (what: string, task: () => Promise<void>): void => {
    task().catch((error: unknown) => log.error(`${what} failed`, { error: messageOf(error) }));
  };

  owned.add(
    signaling.onConnected(() => {
      run("keys", checkKeys);
      run("presence", watch);
    }),
  );
  owned.add(signaling.onKeysLow(() => run("keys", checkKeys)));
  owned.add(signaling.onPresence(({ userId, online }) => setOnline(userId, online)));
  owned.add(
    signaling.onStateChanged((state) => {
      if (state.state !== "connected") contacts.setAllOffline();
    }),
  );
  owned.add(
    contacts.onChanged(() => {
      if (followContacts()) run("presence", watch);
    }),
  );
  followContacts();

  return {
    dispose() {
      disposed = true;
      keyTimer?.dispose();
      owned.dispose();
    },
  };
};
