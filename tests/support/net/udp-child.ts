import { createSocket } from "node:dgram";

/**
 * A UDP socket in the network namespace it was started in, driven by its parent over IPC. With the argument `echo` it
 * answers every packet with the address that it came from, as a STUN server does.
 *
 *   in   {port, address}              send a packet there
 *   out  {bound: port}                once
 *   out  {from: "address:port", text}
 */
const socket = createSocket("udp4");
const isEcho = process.argv[2] === "echo";
socket.on("message", (packet, { address, port }) => {
  if (isEcho) socket.send(`${address}:${port}`, port, address);
  process.send?.({ from: `${address}:${port}`, text: packet.toString() });
});
socket.bind(Number(process.argv[3] ?? 0), () => process.send?.({ bound: socket.address().port }));
process.on("message", ({ port, address }: { port: number; address: string }) => socket.send("hello", port, address));
process.on("disconnect", () => process.exit(0));
