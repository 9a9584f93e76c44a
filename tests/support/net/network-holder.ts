import { startCoturn } from "./coturn.ts";
import { Network } from "./network.ts";

/** Makes a network, prints the ids of the processes that belong to it, and waits to be killed. */
const network = await Network.create();
const host = await (await network.site("port-restricted")).host();
const coturn = await startCoturn(network.internet);
process.stdout.write(`${JSON.stringify([network.internet.pid, host.namespace.pid, coturn.pid])}\n`);
setInterval(() => undefined, 60_000);
