import { createSocket } from "node:dgram";
import { probeNat } from "../../../src-main/links/nat-probe.ts";
import { systemEnv } from "../../../src-main/log.ts";

/**
 * In the network namespace it was started in:
 *
 *   stun PORT    a STUN server (RFC 8489), which says {"ready":true} and answers everybody until it is killed
 *   probe URL..  asks these servers how this machine looks to them, and prints what `probeNat` makes of it
 */
const [mode, ...args] = process.argv.slice(2);

const answer = (request: Buffer, address: string, port: number): Buffer => {
  const packet = Buffer.alloc(20 + 12);
  packet.writeUInt16BE(0x0101, 0);
  packet.writeUInt16BE(12, 2);
  packet.set(request.subarray(4, 20), 4);
  packet.writeUInt16BE(0x0020, 20);
  packet.writeUInt16BE(8, 22);
  packet.writeUInt8(1, 25);
  packet.writeUInt16BE(port ^ 0x2112, 26);
  const bytes = address.split(".").map(Number);
  for (const [index, cookie] of [0x21, 0x12, 0xa4, 0x42].entries())
    packet.writeUInt8((bytes[index] ?? 0) ^ cookie, 28 + index);
  return packet;
};

if (mode === "stun") {
  const socket = createSocket("udp4");
  socket.on("message", (request, { address, port }) => socket.send(answer(request, address, port), port, address));
  socket.bind(Number(args[0]), () => process.stdout.write('{"ready":true}\n'));
} else process.stdout.write(`${JSON.stringify(await probeNat(systemEnv(), args))}\n`);
