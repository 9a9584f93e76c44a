import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import * as v from "valibot";
import { defined } from "#shared/base/assert.ts";
import { Emitter } from "#shared/base/emitter.ts";
import { type ChatId, type FileId, FileIdSchema, type UserId, UserIdSchema } from "#shared/base/ids.ts";
import { LOCAL_MTU_BYTES, NOTICE_AT_START_MS, QUIT_FIN_TIMEOUT_MS } from "#shared/base/limits.ts";
import { messageOf } from "#shared/base/result.ts";
import type { ErrorView } from "#shared/ipc/views.ts";
import { type Activity, createActivity } from "./activity/activity.ts";
import type { App, AppOptions } from "./app.ts";
import { createHandlers } from "./commands.ts";
import { type Contacts, createContacts } from "./contacts/contacts.ts";
import { type Account, fingerprintOf, loadOrCreateAccount, verifyAccountSignature } from "./crypto/identity.ts";
import { createSessions } from "./crypto/signal-sessions.ts";
import { EventLoopMonitor } from "./diagnostics.ts";
import { createEngine } from "./engine/engine-client.ts";
import { followGroupMembers } from "./group-files.ts";
import type { PublishedEvent } from "./ipc/handlers.ts";
import { createCandidateDirectory } from "./links/candidate-directory.ts";
import { createLinks } from "./links/connection-manager.ts";
import type { LinkManager } from "./links/links.ts";
import { createRelayDriver } from "./links/relay-driver.ts";
import { followLocalNetwork, type LocalNetwork } from "./local-network.ts";
import { createMessages, type Messages } from "./messages/messages.ts";
import { newEnvelopeId } from "./messages/new-id.ts";
import { ServerChoice } from "./server-choice.ts";
import { Settings } from "./settings.ts";
import { createReceipts, type Receipts, type ReceiptsDeps } from "./shares/receipts.ts";
import { createShares, type Shares } from "./shares/shares.ts";
import type { Signaling } from "./signaling/signaling.ts";
import { createSignaling } from "./signaling/signaling-client.ts";
import { createStorage, type Storage } from "./storage.ts";
import { Ballast } from "./store/ballast.ts";
import { ContactNetworkTable } from "./store/contact-network.ts";
import { Database } from "./store/database.ts";
import { lockProfile } from "./store/lock.ts";
import { appMigrations } from "./store/schema/app.ts";
import { TransfersTable } from "./store/transfers.ts";
import { createChunkWorker } from "./transfer/chunk-worker-client.ts";
import { createFiles, type Files } from "./transfer/files.ts";
import { filesToKeep } from "./transfer/kept-files.ts";
import { createTransfers, type Transfers } from "./transfer/transfers.ts";
import { startUpkeep, type Upkeep } from "./upkeep.ts";

/** Everything the commands work with; made below and nowhere else. */
export interface Parts {
  readonly options: AppOptions;
  readonly protection: "keystore" | "passphrase" | "file" | "weak";
  readonly account: Account;
  readonly settings: Settings;
  readonly signaling: Signaling;
  readonly contacts: Contacts;
  readonly contactNetwork: ContactNetworkTable;
  readonly links: LinkManager;
  readonly localNetwork: LocalNetwork;
  readonly messages: Messages;
  readonly shares: Shares;
  readonly receipts: Receipts;
  readonly files: Files;
  readonly transfers: Transfers;
  readonly activity: Activity;
  readonly storage: Storage;
  readonly monitor: EventLoopMonitor;
  readonly upkeep: Upkeep;
  readonly server: ServerChoice;
}

/** A reason not to start that the user can do something about. */
export class AppStartError extends Error {
  override readonly name = "AppStartError";
}

/**
 * The composition root: the one place that constructs. What is made later uses what was made before it; `stop` takes it
 * down in the opposite order.
 *
 * @throws AppStartError, StartError (server), VaultError (host) in words for the user.
 */
export const startApp = async (options: AppOptions): Promise<App> => {
  const { env, dataDir } = options;
  await mkdir(dataDir, { recursive: true, mode: 0o700 });
  const stops: (() => void | Promise<void>)[] = [];
  const stop = async (): Promise<void> => {
    for (let next = stops.pop(); next !== undefined; next = stops.pop()) {
      try {
        await next();
      } catch (error) {
        env.log.error("a part did not stop in order", { error: messageOf(error) });
      }
    }
  };
  try {
    return await build(options, stops, stop);
  } catch (error) {
    await stop();
    throw error;
  }
};

const build = async (
  options: AppOptions,
  stops: (() => void | Promise<void>)[],
  stop: () => Promise<void>,
): Promise<App> => {
  const { env, dataDir } = options;
  const own = <T extends { dispose(): void | Promise<void> }>(part: T): T => {
    stops.push(() => part.dispose());
    return part;
  };
  const onListenerError = (error: unknown): void => env.log.error("a listener failed", { error: messageOf(error) });

  const lock = lockProfile(dataDir);
  if (!lock.ok) throw new AppStartError(lock.error.message);
  own(lock.value);
  const ballast = own(new Ballast({ env, directory: dataDir }));
  void ballast.ensure();
  const { key, protection } = await options.vault.load();
  const db = own(Database.openApp(join(dataDir, "app.db"), key, appMigrations));
  const diskFull = db.onDiskFull(() => ballast.release());
  stops.push(() => diskFull.dispose());
  const settings = new Settings(
    db,
    { defaultDownloadDirectory: options.defaultDownloadDirectory, overrides: overridesOf(options) },
    onListenerError,
  );
  if (options.name !== undefined) settings.name = options.name;

  const account = loadOrCreateAccount(db, env);
  // Before anything that is logged with its row.
  const activity = own(createActivity({ env, db, self: account.userId, guards: () => settings.get().activityGuards }));
  const sessions = await createSessions({ db, env, account, deviceId: 1 });
  const signaling = own(
    createSignaling({ env, identity: { ...account, deviceId: 1, newRequestKey: () => newEnvelopeId(env.random) } }),
  );
  const contacts = own(
    createContacts({ env, db, sessions, signaling, self: { ...account, name: () => settings.name } }),
  );
  const contactNetwork = new ContactNetworkTable(db);
  const engine = own(createEngine({ env, fork: options.forkEngine }));
  const directory = createCandidateDirectory({
    clock: env.clock,
    signaling,
    fingerprint: account.fingerprint,
    fingerprintOf: (peer) => {
      const accountKey = contacts.accountKeyOf(peer);
      return accountKey === null ? null : fingerprintOf(accountKey);
    },
    pairwiseSecret: (peer) => sessions.pairwiseSecret(peer),
  });
  const links = own(
    createLinks({
      directory,
      env,
      localUserId: account.userId,
      signaling,
      sessions,
      account,
      verifyAccountSignature,
      accountKeyOf: (peer) => contacts.accountKeyOf(peer),
      mayLink: (peer) => contacts.isAccepted(peer) && !contacts.isKeyChanged(peer),
      policyOf: (peer) => contactNetwork.get(peer),
      iceServers: () => signaling.iceServers(),
      driver: engine.driver,
      localMtu: LOCAL_MTU_BYTES,
      relay: createRelayDriver({ env, relay: signaling.relay }),
      onBrokenSession: (peer, lost) => messages?.unreadable(peer, lost),
    }),
  );
  /** From here on somebody listens. */
  const started = Promise.withResolvers<void>();
  const worker = own(
    createChunkWorker({
      env,
      start: engine.chunkWorker(options.chunkWorkerUrl),
      databasePath: join(dataDir, "chunks.db"),
      onDiskFull: () => ballast.release(),
      filesToKeep: () => filesToKeep(db),
      onRepaired: (report) => void started.promise.then(() => files.repaired(report)),
    }),
  );
  const opened = await worker.ready();
  if (!opened.ok) throw new AppStartError(opened.error.message);
  let messages: Messages | null = null;
  const post: ReceiptsDeps["post"] = (peer, draft) => defined(messages, "messages").post(peer, draft);
  const receipts = own(
    createReceipts({
      ...{ env, db, account, signaling, post },
      isContact: (peer) => defined(messages, "messages").mayPost(peer),
      nameOf: (userId) => (userId === account.userId ? settings.name : contacts.nameOf(userId)),
      operations: (fileId) => shares.log(fileId),
    }),
  );
  const onOffered = (fileId: FileId, userId: UserId): void => receipts.offered(fileId, userId);
  const shares: Shares = own(
    createShares({
      env,
      db,
      account,
      signaling,
      isContact: (peer) => contacts.isAccepted(peer),
      nameOf: (peer) => contacts.nameOf(peer),
      post,
      onOffered,
      downloads: (fileId) => ({ completedBy: receipts.completedBy(fileId), current: receipts.isCurrent(fileId) }),
      sendKey: (peer, offer, start) => defined(messages, "messages").sendFileKey(peer, offer, start),
      registerAgain: (fileId) => files.registerAgain(fileId),
    }),
  );
  const files: Files = own(
    createFiles({
      env,
      db,
      account,
      worker,
      signaling,
      accountKeyOf: (peer) => contacts.accountKeyOf(peer),
      isTrusted: (peer) => contacts.isAccepted(peer) && !contacts.isKeyChanged(peer),
      maySend: (chatId: ChatId) => defined(messages, "messages").mayReceive(chatId),
      membersOf: (chatId) => defined(messages, "messages").membersOf(chatId),
      sendFile: (chatId, offer, start) => defined(messages, "messages").sendFile(chatId, offer, start),
      shares,
      onOffered,
      hasCompleted: (fileId, userId) => receipts.completedBy(fileId).has(userId),
      onRegistered: (fileId) => receipts.registered(fileId),
    }),
  );
  const transfers = own(
    createTransfers({
      env,
      db,
      worker,
      links,
      files,
      onCompleted: (fileId) => receipts.completed(fileId),
      hindranceOf: (owner) => hindranceOf(contacts, owner),
      nameOf: (peer) => contacts.get(peer)?.name ?? "Somebody",
      settings: () => settings.get(),
      onSettingsChanged: settings.onChanged,
    }),
  );
  messages = own(
    createMessages({
      env,
      db,
      account,
      sessions,
      signaling,
      links,
      contacts,
      files,
      shares,
      fileReceipts: receipts,
      profileName: () => settings.name,
      preferences: () => settings.get(),
    }),
  );
  // A kill may have come between the end of a download and its receipt.
  for (const { fileId, phase } of transfers.list())
    if (phase === "complete") receipts.completed(v.parse(FileIdSchema, fileId));
  receipts.onChanged((fileId) => shares.recounted(fileId));
  shares.onAccessLost(({ fileId, why }) => transfers.accessLost(fileId, why));
  const isOwn = (fileId: FileId): boolean => files.find(fileId)?.offer.signed.manifest.ownerId === account.userId;
  own(followGroupMembers({ env, db, messages, shares, signaling, isOwn }));
  contacts.onChanged((contact) => {
    const userId = v.parse(UserIdSchema, contact.userId);
    if ("removed" in contact) transfers.contactGone(userId, "removed");
    else if (contact.state === "blocked") transfers.contactGone(userId, "blocked");
    else transfers.contactChanged(userId);
  });
  const ownerOf = (fileId: string): string | null => files.find(fileId)?.offer.signed.manifest.ownerId ?? null;
  const notices = [contacts, messages, files, transfers].map((part) => part.onNotice);
  own(
    activity.record({
      ...{ links, contacts, transfers, notices },
      files: { list: () => files.list(), onChanged: files.onChanged, ownerOf },
    }),
  );
  const localNetwork = own(
    followLocalNetwork({ env, self: account.userId, settings, contacts, contactNetwork, sessions, links }),
  );
  const transfersTable = new TransfersTable(db);
  const storage = createStorage({
    ...{ env, dataDir, worker },
    records: () => transfersTable.all(),
    isKnown: (fileId) => files.find(fileId) !== null,
    downloadDirectory: () => settings.get().downloadDirectory,
  });
  void storage.removeLeftovers();
  const monitor = own(new EventLoopMonitor(env.clock));
  own(transfers.onChanged(() => monitor.stir()));
  own(transfers.onServed(() => monitor.stir()));
  const server = own(new ServerChoice({ ...options, settings, signaling }));
  const upkeep = own(startUpkeep({ env, signaling, sessions, contacts, links }));
  const parts: Parts = {
    ...{
      options,
      protection,
      account,
      settings,
      signaling,
      contacts,
      contactNetwork,
      links,
      localNetwork,
      messages,
      shares,
      receipts,
      files,
      transfers,
      activity,
      storage,
      monitor,
      upkeep,
    },
    server,
  };
  const events = publishAll(parts, onListenerError);
  own(env.clock.setTimer(NOTICE_AT_START_MS, () => started.resolve()));
  stops.push(() => events.dispose());
  const serverUrl = await server.use(settings.get().server);
  if (!serverUrl.ok) throw new AppStartError(serverUrl.error.message);
  links.enable();
  stops.push(async () => {
    await links.disable(QUIT_FIN_TIMEOUT_MS);
    signaling.disable();
    await defined(messages, "messages").settled();
  });
  return {
    userId: account.userId,
    serverUrl: serverUrl.value,
    handlers: createHandlers(parts),
    events: events.event,
    savedPath: (fileId) => transfers.savedPath(fileId),
    sharedPaths: () => files.sharedPaths(),
    networkChanged: () => links.networkChanged(),
    stop,
  };
};

/** Why nothing of this person arrives until the user does something. */
const hindranceOf = (contacts: Contacts, owner: UserId): ErrorView | null => {
  if (contacts.relationOf(owner)?.kind === "blocked")
    return { type: "contact_blocked", message: "You blocked this person. Unblock them, then try again." };
  if (!contacts.isKeyChanged(owner)) return null;
  return {
    type: "key_changed",
    message: "The key of this person has changed. Compare the safety number and accept it; the download goes on then.",
  };
};

const overridesOf = (options: AppOptions): { server?: string; downloadDirectory?: string } => ({
  ...(options.server === undefined ? {} : { server: options.server }),
  ...(options.downloadDirectory === undefined ? {} : { downloadDirectory: options.downloadDirectory }),
});

/** Every part's snapshots, under the names of the contract. */
const publishAll = (parts: Parts, onListenerError: (error: unknown) => void): Emitter<PublishedEvent> => {
  const events = new Emitter<PublishedEvent>(onListenerError);
  const { signaling, contacts, links, messages, files, transfers } = parts;
  contacts.onChanged((payload) => events.emit({ event: "contact.changed", payload }));
  messages.onChatChanged((payload) => events.emit({ event: "chat.changed", payload }));
  messages.onMessageChanged((payload) => events.emit({ event: "message.changed", payload }));
  files.onChanged((payload) => {
    events.emit({ event: "file.changed", payload });
    messages.fileChanged(v.parse(FileIdSchema, payload.fileId));
  });
  files.onShareProgress((payload) => events.emit({ event: "share.progress", payload }));
  transfers.onChanged((payload) => events.emit({ event: "transfer.changed", payload }));
  links.onChanged((payload) => events.emit({ event: "link.changed", payload }));
  signaling.onStateChanged((payload) => events.emit({ event: "server.changed", payload }));
  for (const part of [contacts, messages, parts.shares, files, transfers])
    part.onNotice((payload) => events.emit({ event: "notice", payload }));
  return events;
};
