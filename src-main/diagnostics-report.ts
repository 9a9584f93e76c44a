import { redactor } from "./redact.ts";
import type { Parts } from "./start-app.ts";

/** What `diagnostics.export` answers. Nothing here names a person, a file, a text, a key or an address. */
export const diagnose = async (parts: Parts): Promise<Record<string, unknown>> => {
  const { contacts, files, settings, account } = parts;
  const redact = redactor({
    userIds: [account.userId, ...contacts.list().map(({ userId }) => userId)],
    fileIds: files.list().map(({ fileId }) => fileId),
    names: [settings.name, ...contacts.list().map(({ name }) => name), ...files.list().map(({ name }) => name)],
  });
  return redact(await reportOf(parts)) as Record<string, unknown>;
};

const reportOf = async (parts: Parts): Promise<Record<string, unknown>> => {
  const { options, signaling, links, contacts, messages, transfers, activity, monitor } = parts;
  const log = options.recentLog.entries();
  const count = <T>(items: readonly T[], key: (item: T) => string): Record<string, number> => {
    const counts: Record<string, number> = {};
    for (const item of items) counts[key(item)] = (counts[key(item)] ?? 0) + 1;
    return counts;
  };
  return {
    version: options.version,
    node: process.version,
    libraries: process.versions,
    platform: `${process.platform}-${process.arch}`,
    atMs: options.env.clock.now(),
    server: signaling.state.state,
    keyProtection: parts.protection,
    contacts: count(contacts.list(), (contact) => contact.state),
    links: links.list().map(({ state, path, rttMs, generation, staleEvents, reason }) => ({
      ...{ state, path, rttMs, generation, staleEvents, reason },
    })),
    linkHistory: links.reports().map(({ link, attempts, nat }) => ({ peer: link.peerId, nat, attempts })),
    inbox: messages.counters(),
    strayFrames: transfers.counters().strayFrames,
    transfers: transfers.list().map((view) => ({
      ...{ phase: view.phase, paused: view.paused, waitingForSeeders: view.waitingForSeeders, drain: view.drain },
      ...{ sizeBytes: view.sizeBytes, chunksStored: view.chunksStored, chunkCount: view.chunkCount },
      ...{ requestedChunks: view.requestedChunks, duplicateChunks: view.duplicateChunks },
      ...{ lateChunks: view.lateChunks, rejectedChunks: view.rejectedChunks },
      ...{
        cancelledChunks: view.cancelledChunks,
        dropped: view.dropped.map(({ reason }) => reason),
        error: view.error?.type ?? null,
      },
    })),
    chunkUsage: {
      ...transfers.chunkUsage(),
      evictions: transfers.chunkUsage().evictions.map(({ bytes, atMs }) => ({ bytes, atMs })),
    },
    memory: { rssBytes: process.memoryUsage.rss(), heapBytes: process.memoryUsage().heapUsed },
    eventLoop: monitor.report(),
    activity: await activity.health(),
    events: activity.recent(),
    linkSteps: links.recording(),
    errors: log.filter((entry) => "level" in entry && (entry.level === "error" || entry.level === "warn")),
    log,
  };
};
