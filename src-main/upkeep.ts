import * as v from "valibot";
import { type Disposable, DisposableStore } from "#shared/base/disposable.ts";
import type { Env } from "#shared/base/env.ts";
import { type UserId, UserIdSchema } from "#shared/base/ids.ts";
import { KEY_CHECK_INTERVAL_MS, UPKEEP_RETRY_MS } from "#shared/base/limits.ts";
import { fail, messageOf, ok, type Result } from "#shared/base/result.ts";
import type { Contacts } from "./contacts/contacts.ts";
import type { Sessions } from "./crypto/sessions.ts";
import type { Links } from "./links/links.ts";
import type { Signaling } from "./signaling/signaling.ts";

export interface UpkeepDeps {
  readonly env: Env;
  readonly signaling: Pick<
    Signaling,
    "state" | "generation" | "request" | "onConnected" | "onKeysLow" | "onPresence" | "onStateChanged"
  >;
  readonly sessions: Pick<Sessions, "keysToPublish" | "published">;
  readonly contacts: Pick<
    Contacts,
    "userIds" | "isAccepted" | "isKeyChanged" | "onChanged" | "setOnline" | "setAllOffline"
  >;
  readonly links: Pick<Links, "connect" | "disconnect" | "presenceHint">;
}

/** A task that runs once at a time, again when it was asked for meanwhile, and after a while when it failed. */
const repeating = (env: Env, what: string, task: () => Promise<"done" | "failed">, laterMs: number | null) => {
  let state: "idle" | "running" | "again" = "idle";
  let timer: Disposable | null = null;
  let disposed = false;
  let waiting: (() => void)[] = [];
  const runLater = (delayMs: number | null): void => {
    timer?.dispose();
    timer = delayMs === null || disposed ? null : env.clock.setTimer(delayMs, run);
  };
  const run = (): void => {
    if (disposed) return;
    if (state !== "idle") {
      state = "again";
      return;
    }
    state = "running";
    task()
      .catch((error: unknown): "failed" => {
        env.log.error(`${what} failed`, { error: messageOf(error) });
        return "failed";
      })
      .then((outcome) => {
        const again = state === "again";
        state = "idle";
        if (again) return run();
        runLater(outcome === "done" ? laterMs : UPKEEP_RETRY_MS);
        const settled = waiting;
        waiting = [];
        for (const settle of settled) settle();
      })
      .catch((error: unknown) => env.log.error(`${what} failed`, { error: messageOf(error) }));
  };
  return {
    run,
    /** Runs it, after the run that goes on; ends when nothing of it is left to do now, whatever came of it. */
    settled: (): Promise<void> =>
      new Promise((resolve) => {
        waiting.push(resolve);
        run();
        if (disposed) resolve();
      }),
    dispose(): void {
      disposed = true;
      timer?.dispose();
      for (const settle of waiting) settle();
    },
  };
};

/**
 * What holds for as long as the app runs: our keys are at the server, we watch exactly the accepted contacts, and a link
 * is wanted to each of them whose key is the one that was accepted.
 */
export interface Upkeep extends Disposable {
  /**
   * Waits for the first publication of our keys at this server. Whoever gets an invitation before that cannot answer it:
   * the server does not know us yet.
   */
  keysPublished(): Promise<Result<void>>;
}

export const startUpkeep = ({ env, signaling, sessions, contacts, links }: UpkeepDeps): Upkeep => {
  const owned = new DisposableStore();
  const accepted = new Set<UserId>();
  const linked = new Set<UserId>();

  const publishKeys = async (): Promise<"done" | "failed"> => {
    // A login comes sooner or later, and calls again.
    if (signaling.state.state !== "connected") return "done";
    const status = await signaling.request("keys.status", {});
    if (!status.ok) return "failed";
    const keys = await sessions.keysToPublish(status.value);
    const answer = await signaling.request("keys.publish", keys);
    if (!answer.ok) {
      env.log.warn("keys were not published", { type: answer.error.type });
      return "failed";
    }
    sessions.published(keys);
    return "done";
  };

  const keysPublished = async (): Promise<Result<void>> => {
    const before = await signaling.request("keys.status", {});
    if (!before.ok) return before;
    if (before.value.published) return ok(undefined);
    await keys.settled();
    const after = await signaling.request("keys.status", {});
    if (!after.ok) return after;
    if (after.value.published) return ok(undefined);
    return fail("keys_not_published", "The server has not taken your keys yet. Try again in a moment.");
  };

  const watchContacts = async (): Promise<"done" | "failed"> => {
    if (signaling.state.state !== "connected") return "done";
    const { generation } = signaling;
    const answer = await signaling.request("presence.watch", { userIds: [...accepted] });
    // Of an older connection: the newer one has asked by itself.
    if (generation !== signaling.generation) return "done";
    if (!answer.ok) return "failed";
    for (const text of answer.value.online) {
      const userId = v.safeParse(UserIdSchema, text);
      if (userId.success) setOnline(userId.output, true);
    }
    return "done";
  };

  const setOnline = (userId: UserId, online: boolean): void => {
    // The server is not trusted to say who our contacts are.
    if (!accepted.has(userId)) return;
    contacts.setOnline(userId, online);
    links.presenceHint(userId, online);
  };

  const keys = owned.add(repeating(env, "publishing keys", publishKeys, KEY_CHECK_INTERVAL_MS));
  const watch = owned.add(repeating(env, "watching presence", watchContacts, null));

  /** One contact at a time: this runs on every change of any of them. */
  const follow = (userId: UserId): void => {
    const isAccepted = contacts.isAccepted(userId);
    const mayLink = isAccepted && !contacts.isKeyChanged(userId);
    if (isAccepted !== accepted.has(userId)) {
      if (isAccepted) accepted.add(userId);
      else accepted.delete(userId);
      // Before the first signal: the server passes signals only between people who watch each other.
      watch.run();
    }
    if (mayLink && !linked.has(userId)) {
      linked.add(userId);
      links.connect(userId);
    } else if (!mayLink && linked.delete(userId)) {
      links.disconnect(userId).catch((error: unknown) => {
        env.log.error("a link was not closed in order", { error: messageOf(error) });
      });
    }
  };

  owned.add(
    signaling.onConnected(() => {
      keys.run();
      watch.run();
    }),
  );
  owned.add(signaling.onKeysLow(() => keys.run()));
  owned.add(signaling.onPresence(({ userId, online }) => setOnline(userId, online)));
  owned.add(
    signaling.onStateChanged((state) => {
      if (state.state !== "connected") contacts.setAllOffline();
    }),
  );
  owned.add(contacts.onChanged(({ userId }) => follow(v.parse(UserIdSchema, userId))));
  for (const userId of contacts.userIds()) follow(userId);
  return { keysPublished, dispose: () => owned.dispose() };
};
