import type { ChatId, FileId } from "#shared/base/ids.ts";
import { fail, ok, type Result } from "#shared/base/result.ts";
import type { AccessView, ChatView, ProfileView } from "#shared/ipc/views.ts";
import type { ShareTerms } from "#shared/shares/share-log.ts";
import { diagnose } from "./diagnostics-report.ts";
import type { AppHandlers } from "./ipc/handlers.ts";
import { accessViewOf } from "./shares/access-view.ts";
import type { Parts } from "./start-app.ts";
import { makeDownloadFolder } from "./transfer/download-folder.ts";

/** Without what was left out, which the schema gives as undefined. */
const given = (terms: { [Term in keyof ShareTerms]?: ShareTerms[Term] | undefined }): Partial<ShareTerms> => ({
  ...(terms.expiresAtMs === undefined ? {} : { expiresAtMs: terms.expiresAtMs }),
  ...(terms.downloadLimit === undefined ? {} : { downloadLimit: terms.downloadLimit }),
});

/** The contract's commands in terms of the app's parts: one line each wherever a part does the work. */
export const createHandlers = (parts: Parts): AppHandlers => {
  const { account, settings, signaling, contacts, contactNetwork, links, localNetwork, messages, shares, files } =
    parts;
  const { transfers, activity, receipts } = parts;
  const profile = (): ProfileView => ({
    userId: account.userId,
    name: settings.name,
    fingerprint: account.fingerprint,
    server: signaling.state,
    keyProtection: parts.protection,
  });

  const access = (fileId: FileId): Result<AccessView> => {
    const file = files.get(fileId);
    if (!file.ok) return file;
    const operations = shares.log(fileId);
    return ok(
      accessViewOf(
        file.value,
        { list: shares.list(fileId), operations, receipts: receipts.of(fileId) },
        account.userId,
      ),
    );
  };

  const shown = (made: Result<ChatId>): Result<ChatView> => (made.ok ? messages.chat(made.value) : made);
  const changed = (chatId: ChatId, made: Result<void>): Result<ChatView> => (made.ok ? messages.chat(chatId) : made);

  return {
    "profile.get": () => ok(profile()),
    "profile.update": ({ name }) => {
      if (name !== settings.name) {
        settings.name = name;
        messages.broadcastProfile(name);
      }
      return ok(profile());
    },

    "invites.create": async () => {
      const reachable = await parts.upkeep.keysPublished();
      return reachable.ok ? contacts.createInvite() : reachable;
    },
    "invites.accept": async ({ invite }) => {
      const contact = await contacts.acceptInvite(invite);
      return contact.ok ? ok({ contact: contact.value }) : contact;
    },

    "contacts.list": () => ok(contacts.list()),
    "contacts.accept": async ({ userId }) => {
      const accepted = await contacts.accept(userId);
      if (!accepted.ok) return accepted;
      contactNetwork.setAccepted(userId);
      links.policyChanged(userId);
      localNetwork.policyChanged(userId);
      return accepted;
    },
    "contacts.network": ({ userId, policy }) => {
      if (contacts.relationOf(userId) === null) return fail("unknown_contact", "There is no contact with this id.");
      if (policy !== undefined) {
        contactNetwork.setPolicy(userId, policy);
        links.policyChanged(userId);
        localNetwork.policyChanged(userId);
      }
      return ok({ userId, ...contactNetwork.get(userId) });
    },
    "contacts.verify": ({ userId, verified }) => contacts.verify(userId, verified),
    "contacts.safetyCode": ({ userId }) => contacts.safetyCode(userId),
    "contacts.block": ({ userId }) => contacts.block(userId),
    "contacts.unblock": ({ userId }) => contacts.unblock(userId),
    "contacts.remove": ({ userId }) => contacts.remove(userId),

    "chats.list": () => ok(messages.chats()),
    "chats.createGroup": ({ name, userIds }) => shown(messages.groups.create(name, userIds)),
    "chats.addMembers": ({ chatId, userIds }) => changed(chatId, messages.groups.add(chatId, userIds)),
    "chats.removeMember": ({ chatId, userId }) =>
      changed(chatId, messages.groups.wish(chatId, { kind: "remove", userId })),
    "chats.leave": ({ chatId }) => messages.groups.leave(chatId),
    "chats.settings": ({ chatId, name, role }) => {
      const renamed = name === undefined ? ok(undefined) : messages.groups.wish(chatId, { kind: "rename", name });
      if (!renamed.ok || role === undefined) return changed(chatId, renamed);
      return changed(chatId, messages.groups.wish(chatId, { kind: "role", ...role }));
    },
    "chats.history": ({ chatId }) => messages.groups.history(chatId),
    "chats.markRead": ({ chatId }) => messages.markRead(chatId),
    "chats.typing": ({ chatId, typing }) => messages.typing(chatId, typing),

    "messages.send": ({ chatId, text }) => messages.sendText(chatId, text),
    "messages.receipts": ({ chatId, messageId }) => messages.receipts(chatId, messageId),
    "messages.list": ({ chatId, limit, beforeId }) => messages.list(chatId, limit, beforeId),

    "files.share": ({ chatId, path, ...terms }) => files.share(chatId, path, given(terms)),
    "files.cancelShare": ({ fileId }) => files.cancelShare(fileId),
    "files.get": async ({ fileId }) => {
      await files.refresh(fileId);
      return files.get(fileId);
    },
    "files.list": () => ok(files.list()),
    "files.access": async ({ fileId }) => {
      if (files.find(fileId) !== null) void receipts.refresh(fileId);
      await files.refresh(fileId);
      return access(fileId);
    },
    "files.receipts": async ({ fileId }) => {
      if (files.find(fileId) !== null) await receipts.refresh(fileId);
      const exported = receipts.exported(fileId);
      return exported === null ? fail("unknown_file", "This file is not known here.") : ok(exported);
    },
    "files.terms": async ({ fileId, ...terms }) => {
      const changed = await shares.setTerms(fileId, terms);
      return changed.ok ? access(fileId) : changed;
    },
    "files.withdraw": async ({ fileId }) => {
      const withdrawn = await shares.withdraw(fileId);
      return withdrawn.ok ? files.get(fileId) : withdrawn;
    },
    "files.grant": async ({ fileId, userIds }) => {
      const granted = await shares.grant(fileId, userIds);
      return granted.ok ? files.get(fileId) : granted;
    },
    "files.revoke": async ({ fileId, userIds, rekey }) => {
      const revoked = await shares.revoke(fileId, userIds);
      if (!revoked.ok) return revoked;
      return rekey ? files.rekey(fileId) : files.get(fileId);
    },
    "files.leave": async ({ fileId }) => {
      const left = await shares.leave(fileId);
      return left.ok ? files.get(fileId) : left;
    },
    "files.entries": ({ fileId, path, offset }) => files.entries(fileId, path, offset),

    "transfers.start": async ({ fileId, directory, files: selection }) => {
      const genuine = await files.checkRecord(fileId);
      return genuine.ok ? transfers.start(fileId, directory, selection) : genuine;
    },
    "transfers.pause": ({ fileId }) => transfers.pause(fileId),
    "transfers.resume": ({ fileId }) => transfers.resume(fileId),
    "transfers.cancel": ({ fileId }) => transfers.cancel(fileId),
    "transfers.prioritize": ({ fileId, priority }) => transfers.prioritize(fileId, priority),
    "transfers.retry": ({ fileId }) => transfers.retry(fileId),
    "transfers.list": () => ok(transfers.list()),

    "links.list": () => ok(links.list()),
    "links.enable": () => {
      links.enable();
      return ok(links.list());
    },
    "links.disable": async () => {
      await links.disable();
      return ok(links.list());
    },
    "links.reconnect": ({ peerId }) => {
      if (!contacts.isAccepted(peerId)) return fail("unknown_contact", "There is no accepted contact with this id.");
      links.connect(peerId);
      links.reconnect(peerId);
      return ok(links.view(peerId));
    },

    "links.report": ({ peerId }) => ok(peerId === undefined ? links.reports() : [links.report(peerId)]),
    "links.test": async ({ peerId }) => {
      if (!contacts.isAccepted(peerId)) return fail("unknown_contact", "There is no accepted contact with this id.");
      return ok(await links.test(peerId));
    },

    "activity.summary": async ({ fromMs, toMs, userId }) => ok(await activity.summary({ fromMs, toMs, userId })),
    "activity.health": async () => ok(await activity.health()),
    "activity.run": async () => ok(await activity.run()),
    "activity.check": ({ repair }) => activity.check(repair),
    "activity.transfer": async ({ fileId }) => ok(await activity.transfer(fileId)),
    "activity.availability": ({ userId }) => ok(activity.availability(userId)),
    "activity.deleteHistory": async () => ok(await activity.deleteHistory()),

    "settings.get": () => ok(settings.get()),
    "settings.set": async (change) => {
      if (change.downloadDirectory !== undefined) {
        const usable = await makeDownloadFolder(change.downloadDirectory);
        if (!usable.ok) return usable;
      }
      // Only what works is saved: a server that cannot start would keep the next start from succeeding too.
      if (change.server !== undefined && change.server !== settings.get().server) {
        const used = await parts.server.use(change.server);
        if (!used.ok) return used;
      }
      return ok(settings.set(change));
    },

    "storage.usage": () => ok(transfers.chunkUsage()),
    "diagnostics.export": async () => ok({ ...(await diagnose(parts)), storage: await parts.storage.report() }),
  };
};
