import { stat } from "node:fs/promises";
import { basename } from "node:path";
import { type BrowserWindow, dialog, shell } from "electron";
import { fail, ok, type Result } from "#shared/base/result.ts";
import type { PickedFileView } from "#shared/ipc/views.ts";
import type { App } from "../../app.ts";
import type { HostHandlers } from "../../ipc/handlers.ts";
import { dangerousExtension } from "../policy/dangerous-files.ts";
import type { PathGrants } from "../policy/path-grants.ts";

/** What only the desktop window can do: the system's dialogs, and opening what was received. */
export const electronHostHandlers = (options: {
  readonly app: App;
  readonly window: () => BrowserWindow | null;
  readonly grants: PathGrants;
  readonly version: string;
  readonly dataDir: string;
}): HostHandlers => {
  const { app, grants, version, dataDir } = options;

  const pick = async (properties: ("openFile" | "openDirectory" | "multiSelections" | "createDirectory")[]) => {
    const window = options.window();
    const picked = await (window === null
      ? dialog.showOpenDialog({ properties })
      : dialog.showOpenDialog(window, { properties }));
    return picked.canceled ? [] : picked.filePaths;
  };

  return {
    "host.info": () =>
      ok({
        kind: "electron",
        platform: process.platform,
        version,
        canPick: true,
        canOpen: true,
        dataDirectory: dataDir,
      }),

    "host.pickFiles": async () => {
      const files: PickedFileView[] = [];
      for (const path of await pick(["openFile", "multiSelections"])) {
        const sizeBytes = await sizeOf(path);
        if (!sizeBytes.ok) return sizeBytes;
        files.push({ path: grants.grant(path), name: basename(path), sizeBytes: sizeBytes.value });
      }
      return ok(files);
    },

    "host.pickDirectory": async () => {
      const [path] = await pick(["openDirectory", "createDirectory"]);
      return ok(path === undefined ? { path: null } : { path: grants.grant(path), name: basename(path) });
    },

    "host.open": async ({ fileId }) => {
      const path = await savedFile(app, fileId);
      if (!path.ok) return path;
      const extension = dangerousExtension(basename(path.value));
      if (extension !== null && !(await confirmDangerous(options.window(), extension))) return ok({ opened: false });
      const failure = await shell.openPath(path.value);
      return failure === ""
        ? ok({ opened: true })
        : fail("not_opened", "The system has no program for this file. Show it in its folder instead.");
    },

    "host.showInFolder": async ({ fileId }) => {
      const path = await savedFile(app, fileId);
      if (!path.ok) return path;
      shell.showItemInFolder(path.value);
      return ok({ shown: true });
    },
  };
};

const savedFile = async (app: App, fileId: string): Promise<Result<string>> => {
  const path = app.savedPath(fileId);
  if (path === null) return fail("not_saved", "This file has not been downloaded yet.");
  const size = await sizeOf(path);
  return size.ok ? ok(path) : fail("file_missing", "The file was moved or deleted. Download it again.");
};

const sizeOf = async (path: string): Promise<Result<number>> => {
  try {
    return ok((await stat(path)).size);
  } catch {
    return fail("file_not_readable", "The file cannot be read. Check that it is still there and that you may read it.");
  }
};

const OPEN = 1;

const confirmDangerous = async (window: BrowserWindow | null, extension: string): Promise<boolean> => {
  const question = {
    type: "warning" as const,
    message: `A .${extension} file can run a program on this computer.`,
    detail: "Open it only if you expected it and trust the person who sent it.",
    buttons: ["Cancel", "Open anyway"],
    defaultId: 0,
    cancelId: 0,
    noLink: true,
  };
  const { response } = await (window === null
    ? dialog.showMessageBox(question)
    : dialog.showMessageBox(window, question));
  return response === OPEN;
};
