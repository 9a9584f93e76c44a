import type { Database } from "../store/database.ts";
import { FilesTable } from "../store/files.ts";
import { TransfersTable } from "../store/transfers.ts";
import type { KeptFile } from "./chunk-worker-protocol.ts";
import { specOf } from "./files.ts";

/** What somebody still needs of a chunks.db that has to be made anew: our own files, and downloads. */
export const filesToKeep = (db: Database): KeptFile[] => {
  const statuses = new Map(new TransfersTable(db).all().map(({ fileId, status }) => [fileId, status.kind]));
  return new FilesTable(db).all().flatMap(({ offer, sourcePath }) => {
    const spec = specOf(offer);
    const status = statuses.get(spec.fileId);
    if (sourcePath === null && (status === undefined || status === "cancelled")) return [];
    return [{ spec, wantsChunks: sourcePath === null && status !== "complete" }];
  });
};
