import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { writeBounds } from "../src-main/host/window-state.ts";
import { ensureAppBuilt } from "./app-build.ts";
import { findElectron, launchElectron } from "./electron.ts";
import { type HeadlessProfile, pair, say, startHeadless, startServer } from "./headless-process.ts";
import { openBrowser } from "./open-browser.ts";
import { note } from "./run.ts";

/**
 * `npm run demo`: Alice and Bob, paired, each in a window of their own, until both are closed or Ctrl+C is pressed.
 * They meet without a window first; the window then opens the same profile.
 */

/** Side by side on a usual screen, each wide enough for list and conversation. */
const BOUNDS = { Alice: { x: 16, y: 48, width: 740, height: 700 }, Bob: { x: 772, y: 48, width: 740, height: 700 } };
type Name = keyof typeof BOUNDS;

interface Home {
  readonly name: Name;
  /** What `--data` names for the desktop program; the profile itself is the folder in it. */
  readonly data: string;
  readonly profile: string;
  readonly downloads: string;
}

export const runWindows = async (): Promise<number> => {
  const build = await ensureAppBuilt();
  if (build.type === "failed" || build.type === "impossible") {
    note(build.message);
    return 1;
  }
  const dir = await mkdtemp(join(tmpdir(), "weir-demo-"));
  const stops: (() => Promise<unknown>)[] = [];
  const interrupted = new Promise<void>((resolve) => {
    process.once("SIGINT", () => resolve());
    process.once("SIGTERM", () => resolve());
  });
  try {
    const server = await startServer(join(dir, "server"));
    stops.push(() => server.stop());
    const homes = [homeOf(dir, "Alice"), homeOf(dir, "Bob")] as const;
    const open = async (home: Home): Promise<HeadlessProfile> => {
      const { name, profile: dataDir, downloads } = home;
      await mkdir(downloads, { recursive: true });
      const profile = await startHeadless({ dataDir, server: server.ready.url, name, downloads });
      stops.push(() => profile.stop());
      return profile;
    };
    let profiles: readonly HeadlessProfile[] = await meet([await open(homes[0]), await open(homes[1])]);

    const electron = await findElectron();
    if (electron.type === "ready") {
      for (const profile of profiles) await profile.stop();
      note(`Everything lives in ${dir} and is removed when both windows are closed.`);
      if ((await showWindows(electron.executable, homes, server.ready.url)) === "closed") return 0;
      note("Electron cannot start on this system (its own message is above), so Alice and Bob open in the browser.");
      profiles = [await open(homes[0]), await open(homes[1])];
    } else {
      note(`${electron.reason}, so Alice and Bob open in the browser.`);
    }
    for (const [index, { ready }] of profiles.entries()) {
      const url = `${ready.url}#${ready.token}`;
      process.stdout.write(`${index === 0 ? "Alice" : "Bob  "}  ${url}\n`);
      openBrowser(url);
    }
    note(`Everything lives in ${dir} and is removed when you press Ctrl+C.`);
    await interrupted;
    return 0;
  } finally {
    for (const stop of stops.reverse()) await stop();
    await rm(dir, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
  }
};

const homeOf = (dir: string, name: Name): Home => {
  const data = join(dir, name.toLowerCase());
  return { name, data, profile: join(data, "profile"), downloads: join(data, "downloads") };
};

const meet = async (people: readonly [HeadlessProfile, HeadlessProfile]): Promise<readonly HeadlessProfile[]> => {
  const [alice, bob] = people;
  await pair(alice, bob);
  await say(alice, bob, "Hi Bob, drop a file here and I will fetch it.");
  await say(bob, alice, "Hi Alice, or you send one first.");
  return people;
};

const showWindows = async (
  executable: string,
  homes: readonly Home[],
  server: string,
): Promise<"closed" | "crashed"> => {
  for (const home of homes) await writeBounds(join(home.profile, "window.json"), BOUNDS[home.name]);
  const windows = homes.map(({ name, data, downloads }) =>
    launchElectron(executable, [`--data=${data}`, `--server=${server}`, `--name=${name}`, `--downloads=${downloads}`]),
  );
  const ends = windows.map(async ({ ended }) => {
    const end = await ended;
    // One that could not start takes the other with it: half a demo shows nothing.
    if (end.type === "crashedAtStart") for (const window of windows) window.stop();
    return end;
  });
  return (await Promise.all(ends)).some((end) => end.type === "crashedAtStart") ? "crashed" : "closed";
};
