import { spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { NatFinding } from "../../src-main/links/nat-probe.ts";
import { whyNoNamespaces } from "../support/net/availability.ts";
import { type Coturn, startCoturn } from "../support/net/coturn.ts";
import { type Host, type NatKind, Network, PUBLIC_ADDRESS, type Site } from "../support/net/network.ts";
import { killProcess, runProgram } from "../support/net/process.ts";

/** What a test of a connection finds out about the router in front of us, at real ones; coturn is one of the servers. */
const CHILD = fileURLToPath(new URL("../support/net/nat-child.ts", import.meta.url));
const SECOND_PORT = 4001;
const reason = whyNoNamespaces();

describe.skipIf(reason !== null)("the address translator", () => {
  const owned = new AsyncDisposableStack();
  let network: Network;
  let coturn: Coturn;
  let site: Site;
  let host: Host;
  beforeAll(async () => {
    network = owned.use(await Network.create());
    coturn = owned.use(await startCoturn(network.internet));
    const [program = "", ...args] = [...network.internet.command, process.execPath, CHILD, "stun", `${SECOND_PORT}`];
    const second = spawn(program, args, { stdio: ["ignore", "pipe", "inherit"] });
    owned.defer(() => killProcess(second));
    await once(second.stdout, "data");
    site = await network.site("port-restricted");
    host = await site.host();
  });
  afterAll(() => owned.disposeAsync());

  const probe = async (from: Host["namespace"], urls: readonly string[]): Promise<NatFinding> =>
    JSON.parse(await runProgram([...from.command, process.execPath, CHILD, "probe", ...urls]));
  const servers = (): string[] => [coturn.stunUrl, `stun:${PUBLIC_ADDRESS}:${SECOND_PORT}`];

  it.each<[NatKind, NatFinding["nat"]]>([
    ["port-restricted", "same"],
    ["symmetric", "varies"],
  ])("%s is told as %s", async (kind, nat) => {
    await site.mend(kind);
    expect(await probe(host.namespace, servers())).toEqual({ nat, asked: 2, answered: 2 });
  });

  it("whose router lets no UDP pass has no answer", async () => {
    await site.mend("port-restricted");
    await site.blockUdp(true);
    expect(await probe(host.namespace, servers())).toEqual({ nat: "unknown", asked: 2, answered: 0 });
    await site.blockUdp(false);
  });

  it("is none where the machine has a public address; and one server is not enough to tell its kind", async () => {
    expect(await probe(network.internet, servers())).toMatchObject({ nat: "none" });
    // The same server, once by STUN and once by TURN.
    const urls = [coturn.stunUrl, coturn.turnUrl.replace("turn:", "turn:1700000000%3Aabc:secret@")];
    expect(await probe(host.namespace, urls)).toEqual({ nat: "unknown", asked: 1, answered: 1 });
  });
});
