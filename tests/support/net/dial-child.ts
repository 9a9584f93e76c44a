import { connect } from "node:net";

/** Connects to a port of 127.0.0.1 in the network namespace it was started in and hands the socket to its parent. */
const socket = connect(Number(process.argv[2]), "127.0.0.1", () => {
  process.send?.("connected", socket, {}, () => process.disconnect());
});
