import { toBase64Url } from "#shared/base/bytes.ts";
import type { Random } from "#shared/base/env.ts";
import { PATH_GRANTS_MAX } from "#shared/base/limits.ts";
import { fail, ok, type Result } from "#shared/base/result.ts";
import type { Handlers } from "../../ipc/handlers.ts";

/**
 * The window never names a place on the disk. It gets a random handle for each file or folder that the person picked
 * or dropped, and only handles are accepted back: a page that was taken over cannot read what was not given to it.
 */
export class PathGrants {
  readonly #random: Random;
  readonly #pathByHandle = new Map<string, string>();

  constructor(random: Random) {
    this.#random = random;
  }

  grant(path: string): string {
    const handle = `grant:${toBase64Url(this.#random.bytes(16))}`;
    this.#pathByHandle.set(handle, path);
    if (this.#pathByHandle.size > PATH_GRANTS_MAX) {
      const [oldest] = this.#pathByHandle.keys();
      if (oldest !== undefined) this.#pathByHandle.delete(oldest);
    }
    return handle;
  }

  resolve(handle: string): Result<string, { type: "path_not_granted"; message: string }> {
    const path = this.#pathByHandle.get(handle);
    if (path !== undefined) return ok(path);
    return fail("path_not_granted", "Pick the file or folder again; the window may only use what you picked.");
  }
}

/** Puts {@link PathGrants} before every command that takes a path; the other commands pass unchanged. */
export const withPathGrants = (handlers: Handlers, grants: PathGrants): Handlers => ({
  ...handlers,
  "files.share": async (input) => {
    const path = grants.resolve(input.path);
    return path.ok ? handlers["files.share"]({ ...input, path: path.value }) : path;
  },
  "transfers.start": async (input) => {
    if (input.directory === undefined) return handlers["transfers.start"](input);
    const directory = grants.resolve(input.directory);
    return directory.ok ? handlers["transfers.start"]({ ...input, directory: directory.value }) : directory;
  },
  "settings.set": async (input) => {
    if (input.downloadDirectory === undefined) return handlers["settings.set"](input);
    const directory = grants.resolve(input.downloadDirectory);
    if (directory.ok) return handlers["settings.set"]({ ...input, downloadDirectory: directory.value });
    // A form that sends the folder back as it was shown changes nothing, so it needs no handle.
    const current = await handlers["settings.get"]({});
    const unchanged = current.ok && current.value.downloadDirectory === input.downloadDirectory;
    return unchanged ? handlers["settings.set"](input) : directory;
  },
});
