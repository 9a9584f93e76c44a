import { fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import rtc from "node-datachannel";

/**
 * Reference figure: node-datachannel alone, between two processes over loopback, one reliable unordered channel, messages
 * of 64 KiB.  node tests/bench/raw-datachannel.ts [--mib 256] [--mtu 4000] -> one JSON line
 */
const { values } = parseArgs({
  options: { mib: { type: "string", default: "256" }, mtu: { type: "string" }, role: { type: "string" } },
});
const messageBytes = 64 * 1024;
const totalBytes = Number(values.mib) * 1024 * 1024;
const highWater = 2 * 1024 * 1024;

type Signal =
  | { sdp: string; kind: "offer" | "answer" }
  | { candidate: string; mid: string }
  | { done: number; cpuMicros: number };

rtc.setSctpSettings({ recvBufferSize: 4 * 1024 * 1024, sendBufferSize: 4 * 1024 * 1024 });
const tell = (signal: Signal): void => {
  if (values.role === "receiver") process.send?.(signal);
  else child?.send(signal);
};
const child =
  values.role === "receiver"
    ? null
    : fork(fileURLToPath(import.meta.url), [
        "--role",
        "receiver",
        "--mib",
        values.mib,
        ...(values.mtu === undefined ? [] : ["--mtu", values.mtu]),
      ]);

const pc = new rtc.PeerConnection("bench", {
  iceServers: [],
  bindAddress: "127.0.0.1",
  maxMessageSize: 512 * 1024,
  disableAutoNegotiation: true,
  ...(values.mtu === undefined ? {} : { mtu: Number(values.mtu) }),
});
const channel = pc.createDataChannel("bulk", { negotiated: true, id: 1, unordered: true });
const early: { candidate: string; mid: string }[] = [];
let described = false;

pc.onStateChange(() => undefined);
pc.onLocalDescription((sdp, kind) => {
  if (kind === "offer" || kind === "answer") tell({ sdp, kind });
});
pc.onLocalCandidate((candidate, mid) => tell({ candidate, mid }));

/** The library starts its ICE transport a moment after the description; until then it throws. */
const addCandidate = ({ candidate, mid }: { candidate: string; mid: string }, triesLeft = 1000): void => {
  try {
    pc.addRemoteCandidate(candidate, mid);
  } catch (error) {
    if (triesLeft === 0) throw error;
    setTimeout(() => addCandidate({ candidate, mid }, triesLeft - 1), 10);
  }
};

const onSignal = (signal: Signal): void => {
  if ("sdp" in signal) {
    pc.setRemoteDescription(signal.sdp, signal.kind);
    described = true;
    if (signal.kind === "offer") pc.setLocalDescription("answer");
    for (const candidate of early) addCandidate(candidate);
  } else if ("candidate" in signal) {
    if (described) addCandidate(signal);
    else early.push(signal);
  } else finish(signal);
};
(child ?? process).on("message", onSignal);
// A receiver whose sender failed must not stay, or whoever reads its output waits for ever.
process.on("disconnect", () => process.exit(1));

let startedAtMs = 0;
let cpuAtStart = process.cpuUsage();
let received = 0;
const cpuMicros = (): number => {
  const { user, system } = process.cpuUsage(cpuAtStart);
  return user + system;
};
const finish = ({ done: bytes, cpuMicros: receiverMicros }: { done: number; cpuMicros: number }): void => {
  const seconds = (performance.now() - startedAtMs) / 1000;
  const line = {
    bench: "raw-datachannel",
    megabytesPerSecond: Math.round((bytes / 1e6 / seconds) * 10) / 10,
    bytes,
    seconds: Math.round(seconds * 1000) / 1000,
    cpuSeconds: Math.round((cpuMicros() + receiverMicros) / 1e4) / 100,
    mtu: values.mtu === undefined ? null : Number(values.mtu),
    messageBytes,
  };
  process.stdout.write(`${JSON.stringify(line)}\n`);
  child?.kill();
  pc.close();
  setTimeout(() => rtc.cleanup(), 100);
};

channel.onClosed(() => undefined);
channel.onError(() => undefined);
channel.onMessage((data) => {
  received += data instanceof ArrayBuffer ? data.byteLength : data.length;
  if (received === totalBytes) tell({ done: received, cpuMicros: cpuMicros() });
});
const message = new Uint8Array(messageBytes);
let sent = 0;
const pump = (): void => {
  while (sent < totalBytes && channel.bufferedAmount() < highWater) {
    channel.sendMessageBinary(message);
    sent += messageBytes;
  }
};
channel.setBufferedAmountLowThreshold(highWater / 4);
channel.onBufferedAmountLow(pump);
channel.onOpen(() => {
  cpuAtStart = process.cpuUsage();
  if (values.role === "receiver") return;
  startedAtMs = performance.now();
  pump();
});
if (child !== null) pc.setLocalDescription("offer");
