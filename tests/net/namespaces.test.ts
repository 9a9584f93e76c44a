import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { whyNoNamespaces } from "../support/net/availability.ts";
import { startCoturn } from "../support/net/coturn.ts";
import type { Namespace } from "../support/net/namespace.ts";
import { type NatKind, Network, PUBLIC_ADDRESS, type Site } from "../support/net/network.ts";
import { killProcess, runProgram } from "../support/net/process.ts";

const UDP_CHILD = fileURLToPath(new URL("../support/net/udp-child.ts", import.meta.url));
const HOLDER = fileURLToPath(new URL("../support/net/network-holder.ts", import.meta.url));
/** Long enough for a packet to have arrived on an idle or a busy machine, where a test shows that none does. */
const QUIET_MS = 300;

interface UdpSocket extends AsyncDisposable {
  readonly port: number;
  send(address: string, port: number): void;
  /** The next packet that nobody has asked for yet; null when none comes in time. */
  next(timeoutMs?: number): Promise<{ from: string; text: string } | null>;
}

const openUdp = async (namespace: Namespace, mode: "plain" | "echo" = "plain", port = 0): Promise<UdpSocket> => {
  const [program = "", ...args] = [...namespace.command, process.execPath, UDP_CHILD, mode, String(port)];
  const child = spawn(program, args, { stdio: ["ignore", "inherit", "inherit", "ipc"] });
  const packets: { from: string; text: string }[] = [];
  let wake = (): void => undefined;
  const [first] = await once(child, "message");
  child.on("message", (packet: { from: string; text: string }) => {
    packets.push(packet);
    wake();
  });
  return {
    port: first.bound,
    send: (address, to) => void child.send({ address, port: to }),
    async next(timeoutMs = 5000) {
      if (packets.length === 0)
        await new Promise<void>((resolve) => {
          wake = resolve;
          setTimeout(resolve, timeoutMs);
        });
      return packets.shift() ?? null;
    },
    [Symbol.asyncDispose]: () => killProcess(child),
  };
};

const reason = whyNoNamespaces();

describe.skipIf(reason !== null)("networks of namespaces", () => {
  it.each<[NatKind, NatKind, boolean]>([
    ["port-restricted", "port-restricted", true],
    ["port-restricted", "symmetric", false],
    ["symmetric", "symmetric", false],
  ])("two hosts behind NATs, %s and %s, can reach each other: %s", async (left, right, reachable) => {
    await using network = await Network.create();
    await using mirrors = new AsyncDisposableStack();
    const [near, far] = [
      mirrors.use(await openUdp(network.internet, "echo", 4001)),
      mirrors.use(await openUdp(network.internet, "echo", 4002)),
    ];
    const behind = async (nat: NatKind): Promise<{ site: Site; socket: UdpSocket; seen: number }> => {
      const site = await network.site(nat);
      const socket = mirrors.use(await openUdp((await site.host()).namespace));
      const ports: string[] = [];
      for (const mirror of [near, far]) {
        socket.send(PUBLIC_ADDRESS, mirror.port);
        ports.push((await socket.next())?.text ?? "nothing");
      }
      expect(ports[0]).toMatch(new RegExp(`^${site.wanAddress}:\\d+$`));
      if (nat === "symmetric") expect(ports[0]).not.toBe(ports[1]);
      else expect(ports[0]).toBe(ports[1]);
      return { site, socket, seen: Number(ports[0]?.split(":")[1]) };
    };
    const [a, b] = [await behind(left), await behind(right)];

    // Unasked packets do not pass; when both have written, they do, if each knows where to.
    b.socket.send(a.site.wanAddress, a.seen);
    expect(await a.socket.next(QUIET_MS)).toBeNull();
    a.socket.send(b.site.wanAddress, b.seen);
    const arrived = await b.socket.next(reachable ? 5000 : QUIET_MS);
    if (reachable) expect(arrived?.from).toBe(`${a.site.wanAddress}:${a.seen}`);
    else expect(arrived).toBeNull();
    expect(await b.site.packetsToPeers()).toBe(1);
  });

  it("hosts of one site see each other; a blocked router, a cut one and a pulled cable let nothing pass", async () => {
    await using network = await Network.create();
    const site = await network.site("port-restricted");
    const [host, neighbour] = [await site.host(), await site.host()];
    await using mirror = await openUdp(network.internet, "echo");
    await using socket = await openUdp(host.namespace);
    await using other = await openUdp(neighbour.namespace);
    const reaches = async (timeoutMs: number): Promise<boolean> => {
      socket.send(PUBLIC_ADDRESS, mirror.port);
      return (await socket.next(timeoutMs)) !== null;
    };
    socket.send(neighbour.address, other.port);
    expect(await other.next()).toMatchObject({ from: `${host.address}:${socket.port}` });
    expect(await reaches(5000)).toBe(true);
    await site.blockUdp(true);
    expect(await reaches(QUIET_MS)).toBe(false);
    await site.blockUdp(false);
    expect(await reaches(5000)).toBe(true);
    await site.cut();
    expect(await reaches(QUIET_MS)).toBe(false);
    await site.restore();
    expect(await reaches(5000)).toBe(true);
    await host.down();
    expect(await reaches(QUIET_MS)).toBe(false);
    await host.up();
    expect(await reaches(5000)).toBe(true);
  });

  it("leave nothing behind, whether they end in order, with an error, or by SIGKILL of the test", async () => {
    const before = await interfaces();
    let pids: number[] = [];
    const failed = (async () => {
      await using network = await Network.create();
      const host = await (await network.site("symmetric")).host();
      await using _coturn = await startCoturn(network.internet);
      pids = [network.internet.pid, host.namespace.pid];
      throw new Error("a test failed");
    })();
    await expect(failed).rejects.toThrow("a test failed");
    expect(pids.filter(isRunning)).toEqual([]);

    // What it leaves in the file system is for whoever kills it.
    const dir = await mkdtemp(join(tmpdir(), "weir-net-holder-"));
    const env = { ...process.env, TMPDIR: dir };
    const child = spawn(process.execPath, [HOLDER], { stdio: ["ignore", "pipe", "inherit"], env });
    const [line] = await once(createInterface(child.stdout), "line");
    const held: number[] = JSON.parse(line);
    expect(held.filter(isRunning)).toEqual(held);
    await killProcess(child);
    await rm(dir, { recursive: true });
    await expect.poll(() => held.filter(isRunning), { timeout: 5000 }).toEqual([]);
    expect(await interfaces()).toBe(before);
  });
});

const interfaces = (): Promise<string> => runProgram(["ip", "-brief", "link"]);

/** Also a zombie has ended: it holds nothing any more. */
const isRunning = (pid: number): boolean => {
  try {
    return !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false;
  }
};
