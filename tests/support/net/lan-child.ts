import { createSocket } from "node:dgram";
import * as v from "valibot";
import { fromHex } from "#shared/base/bytes.ts";
import { UserIdSchema } from "#shared/base/ids.ts";
import { LanDiscovery } from "../../../src-main/links/lan-discovery.ts";
import { systemEnv } from "../../../src-main/log.ts";

/**
 * LAN discovery in the network namespace it was started in, or somebody who listens there. JSON lines on stdout.
 *
 *   lan-child.ts find <self> <peer> <secret in hex> <port>     {"found": hint} and {"lost": hint}; SIGTERM stops it in order
 *   lan-child.ts listen <address of the interface>             {"packet": hex, "from": address} for all multicast DNS
 */
const tell = (line: unknown): void => void process.stdout.write(`${JSON.stringify(line)}\n`);
const [mode, ...args] = process.argv.slice(2);

if (mode === "listen") {
  const socket = createSocket({ type: "udp4", reuseAddr: true });
  socket.on("message", (packet, { address }) => tell({ packet: packet.toString("hex"), from: address }));
  socket.bind(5353, () => {
    socket.addMembership("224.0.0.251", args[0]);
    tell({ ready: true });
  });
} else {
  const [self, peer, hex, port] = v.parse(v.tuple([UserIdSchema, UserIdSchema, v.string(), v.string()]), args);
  const secret = fromHex(hex);
  if (!secret.ok) throw new Error("the secret is no hexadecimal text");
  const discovery = new LanDiscovery({
    env: systemEnv(),
    self,
    peers: () => [{ peer, secret: secret.value }],
    port: Number(port),
  });
  discovery.onFound((found) => tell({ found }));
  discovery.onLost((lost) => tell({ lost }));
  discovery.start();
  tell({ ready: true });
  process.once("SIGTERM", () => discovery.dispose());
}
