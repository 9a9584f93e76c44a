import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { LinkView } from "#shared/ipc/views.ts";
import {
  type HeadlessProfile,
  type ReadyProcess,
  startHeadless,
  startServer,
} from "../../../scripts/headless-process.ts";
import { type Coturn, startCoturn } from "./coturn.ts";
import { type Host, Network, PUBLIC_ADDRESS } from "./network.ts";

/** The product on a network of namespaces: the rendezvous server and coturn in public, people on hosts behind routers. */
export interface NetWorld extends AsyncDisposable {
  readonly network: Network;
  readonly coturn: Coturn;
  readonly server: ReadyProcess<{ url: string }>;
  person(name: string, host: Host): Promise<HeadlessProfile>;
  downloadsOf(name: string): string;
  /** A folder for files that the test makes. */
  readonly dir: string;
}

export const createNetWorld = async (): Promise<NetWorld> => {
  await using owned = new AsyncDisposableStack();
  const dir = await mkdtemp(join(tmpdir(), "weir-net-"));
  owned.defer(() => rm(dir, { recursive: true, force: true }));
  const network = owned.use(await Network.create());
  const coturn = owned.use(await startCoturn(network.internet));
  const secretFile = join(dir, "turn-secret");
  await writeFile(secretFile, coturn.secret, { mode: 0o600 });
  const server = await startServer(join(dir, "server"), {
    place: network.internet,
    args: [
      ...["--host", PUBLIC_ADDRESS],
      ...["--stun-url", coturn.stunUrl, "--turn-url", coturn.turnUrl, "--turn-secret-file", secretFile],
    ],
  });
  owned.defer(() => server.kill());
  const profiles = owned.use(new AsyncDisposableStack());
  const kept = owned.move();
  return {
    network,
    coturn,
    server,
    dir,
    downloadsOf: (name) => join(dir, name, "downloads"),
    async person(name, host) {
      await mkdir(join(dir, name, "downloads"), { recursive: true });
      const profile = await startHeadless({
        dataDir: join(dir, name, "data"),
        server: server.ready.url,
        name,
        downloads: join(dir, name, "downloads"),
        place: host.namespace,
      });
      profiles.defer(() => profile.kill());
      return profile;
    },
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  };
};

/** Resolves once both sides have a link of a path that `fits`; how long that took and what it was, as `me` sees it. */
export const untilLinked = async (
  me: HeadlessProfile,
  other: HeadlessProfile,
  fits: (view: LinkView) => boolean = () => true,
  timeoutMs = 20_000,
): Promise<{ view: LinkView; ms: number }> => {
  const begun = performance.now();
  const standing = (from: HeadlessProfile, to: HeadlessProfile): Promise<LinkView> =>
    from.until(
      "a link",
      async () =>
        (await from.call("links.list", {})).find(
          (view) => view.peerId === to.userId && view.state === "connected" && fits(view),
        ) ?? null,
      timeoutMs,
    );
  const [view] = await Promise.all([standing(me, other), standing(other, me)]);
  return { view, ms: Math.round(performance.now() - begun) };
};
