import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { text } from "node:stream/consumers";
import type { Namespace } from "./namespace.ts";

/** An IP packet as it was on a wire of the namespace. */
export interface Packet {
  readonly protocol: "tcp" | "udp" | "other";
  readonly ports: readonly [number, number];
  /** With all its headers. */
  readonly bytes: Buffer;
}

export interface PacketCapture {
  /** Ends it. `lost`: packets that the kernel could not hand over. */
  stop(): Promise<{ packets: Iterable<Packet>; lost: number }>;
}

/** Node has no packet sockets (packet(7)); Python's standard library has. */
const CAPTURE = `
import signal, socket, struct, sys
ALL, OUTGOING, SOL_PACKET, STATISTICS, RCVBUFFORCE = 3, 4, 263, 6, 33
packets = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ALL))
packets.setsockopt(socket.SOL_SOCKET, RCVBUFFORCE, 256 << 20)
packets.settimeout(0.1)
ended = []
signal.signal(signal.SIGTERM, lambda *_: ended.append(1))
out = open(sys.argv[1], "wb", buffering=1 << 20)
sys.stderr.write("ready\\n"); sys.stderr.flush()
while True:
    try:
        data, where = packets.recvfrom(1 << 17)
    except TimeoutError:
        if ended: break
        continue
    # On its way out it is seen once more as the one that comes in.
    if where[2] != OUTGOING:
        out.write(struct.pack("<I", len(data)) + data)
out.close()
print(struct.unpack("II", packets.getsockopt(SOL_PACKET, STATISTICS, 8))[1])
`;

const PROTOCOLS: Readonly<Record<number, Packet["protocol"]>> = { 6: "tcp", 17: "udp" };

const readPacket = (bytes: Buffer): Packet => {
  const isVersion4 = bytes.length >= 20 && bytes.readUInt8(0) >> 4 === 4;
  const protocol = (isVersion4 ? PROTOCOLS[bytes.readUInt8(9)] : undefined) ?? "other";
  const header = (bytes.readUInt8(0) & 0x0f) * 4;
  if (protocol === "other" || bytes.length < header + 4) return { protocol: "other", ports: [0, 0], bytes };
  return { protocol, ports: [bytes.readUInt16BE(header), bytes.readUInt16BE(header + 2)], bytes };
};

function* packetsIn(file: string): Iterable<Packet> {
  const all = readFileSync(file);
  for (let at = 0; at < all.length; ) {
    const end = at + 4 + all.readUInt32LE(at);
    yield readPacket(all.subarray(at + 4, end));
    at = end;
  }
}

/** Every packet that passes in the namespace from now on is written to the file. */
export const capturePackets = async (namespace: Namespace, file: string): Promise<PacketCapture> => {
  const [program = "", ...args] = [...namespace.command, "python3", "-c", CAPTURE, file];
  const child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"] });
  const ended = once(child, "exit");
  const said = text(child.stdout);
  let problems = "";
  await new Promise<void>((resolve, reject) => {
    child.stderr.setEncoding("utf8").on("data", (part: string) => {
      problems += part;
      if (problems.includes("ready")) resolve();
    });
    child.once("error", reject);
    void ended.then(([code]) => reject(new Error(`the capture ended with ${code}: ${problems}`)));
  });
  return {
    async stop() {
      child.kill("SIGTERM");
      await ended;
      return { packets: packetsIn(file), lost: Number(await said) };
    },
  };
};
