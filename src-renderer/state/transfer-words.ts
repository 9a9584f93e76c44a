import { assertNever } from "#shared/base/assert.ts";
import type { FileClosed, PathKind } from "#shared/ipc/views.ts";
import { folderNameOf, formatBytesOf, formatCount, formatDuration, formatRate, plural } from "../format.ts";
import type { TransferStatus } from "./transfer-status.ts";

/** The two lines of a transfer card: what is happening, and the figures. Both have their place in every state. */
export interface TransferWords {
  headline: string;
  detail: string;
}

const PATH_WORDS: Record<PathKind, string> = {
  lan: "local network",
  direct: "direct",
  relay: "relayed",
  server: "through the server",
};

export const pathWord = (path: PathKind): string => PATH_WORDS[path];

const sourcesWords = (seeders: readonly { path: PathKind }[]): string => {
  const [first] = seeders;
  if (first === undefined) return "looking for a source";
  const paths = [...new Set(seeders.map((seeder) => pathWord(seeder.path)))].join(", ");
  return seeders.length === 1 ? paths : `${seeders.length} sources, ${paths}`;
};

const closedWords = (why: FileClosed, owner: string): string => {
  switch (why) {
    case "withdrawn":
      return owner === "you" ? "You withdrew it from everybody" : `${owner} withdrew it`;
    case "expired":
      return `The time that ${owner} set is over`;
    case "replaced":
      return "It was shared anew under another key";
    case "limit_reached":
      return `Fetched as often as ${owner} ${owner === "you" ? "allow" : "allows"}`;
    default:
      return assertNever(why, "why a file is closed");
  }
};

const also = (text: string | null): string => (text === null ? "" : `, ${text}`);

const anyOf = (names: readonly string[]): string =>
  names.length <= 2 ? names.join(" or ") : `one of ${formatCount(names.length)} people`;

/**
 * `ownerName` is who shared the file; `ownerOnline` whether that person is here now; `usually` when that person usually is,
 * as far as it is known. `awaited`: names of those who are away and may have what is missing.
 */
export const wordsOf = (
  status: TransferStatus,
  ownerName: string,
  ownerOnline: boolean,
  usually: string | null = null,
  awaited: readonly string[] = [],
): TransferWords => {
  switch (status.kind) {
    case "shared":
      return {
        headline: "Shared from this device",
        detail:
          status.copies === 0
            ? "Can be downloaded while you are online"
            : plural(status.copies, "person has it", "people have it"),
      };
    case "moved":
      return { headline: "Moved or changed", detail: "Share it again to let it be downloaded" };
    case "revoked":
      return {
        headline: "No longer available",
        detail: status.byOwner ? `${ownerName} took back your access` : "You gave up your access",
      };
    case "closed":
      return {
        headline: status.mine ? "Not given out any more" : "No longer available",
        detail: closedWords(status.why, status.mine ? "you" : ownerName),
      };
    case "available":
      return {
        headline: "Ready to download",
        detail: ownerOnline ? `${ownerName} is online` : `${ownerName} is offline${also(usually)}`,
      };
    case "downloading": {
      const { bytesStored, sizeBytes, bytesPerSecond, etaMs, seeders } = status.transfer;
      const left = etaMs === null ? "" : ` · ${formatDuration(etaMs)} left`;
      return {
        headline: `${formatBytesOf(bytesStored, sizeBytes)}${left}`,
        detail: `${formatRate(bytesPerSecond)} · ${sourcesWords(seeders)}`,
      };
    }
    case "waiting":
      if (status.transfer.error !== null)
        return {
          headline: awaited.length === 0 ? "Waiting" : `Waiting for ${anyOf(awaited)} to come online`,
          detail: status.transfer.error.message,
        };
      return {
        headline: ownerOnline ? `Waiting for ${ownerName} to answer` : `Waiting for ${ownerName} to come online`,
        detail: `${formatBytesOf(status.transfer.bytesStored, status.transfer.sizeBytes)} · ${ownerOnline || usually === null ? "goes on by itself" : usually}`,
      };
    case "paused":
      if (status.transfer.folder?.choosing)
        return { headline: "Choose what to take", detail: "Nothing but the list of files was fetched" };
      return {
        headline: "Paused",
        detail: `${formatBytesOf(status.transfer.bytesStored, status.transfer.sizeBytes)} received`,
      };
    case "draining":
      return {
        headline: "Waiting for parts in flight",
        detail: `All parts received · ${formatCount(status.remaining)} still on the way`,
      };
    case "assembling": {
      const { assembledChunks, chunkCount } = status.transfer;
      return {
        headline: "Assembling",
        detail: `Part ${formatCount(assembledChunks)} of ${formatCount(chunkCount)} written`,
      };
    }
    case "verifying":
      return { headline: "Verifying", detail: "Comparing the checksum with the sender's" };
    case "complete": {
      const { savedPath, folder } = status.transfer;
      const there = folder?.filesThere ?? 0;
      return {
        headline: there === 0 ? "Done, verified" : `Done, verified · ${plural(there, "file was", "files were")} here`,
        detail: savedPath === null ? "Saved" : `Saved in ${folderNameOf(savedPath)}`,
      };
    }
    case "cancelled":
      return { headline: "Cancelled", detail: "What had arrived was removed" };
    case "failed":
      return { headline: "Failed", detail: status.error.message };
    default:
      return assertNever(status, "transfer status");
  }
};
