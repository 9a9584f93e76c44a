import { appendFileSync } from "node:fs";
import type { ForkEngine, FromEngine, ToEngine } from "../../../src-main/engine/engine-protocol.ts";
import { forkEngine } from "../../../src-main/host/headless/fork-engine.ts";
import { FAR_VARIABLE, type FarSettings } from "./far.ts";
import { ForkedRelay } from "./forked-relay.ts";

/**
 * The headless host of somebody far away: whoever reaches it comes through a bad network in a process of its own. It can lose one
 * of its associations in the middle of a file, as when a router forgets one.
 */
/** As in udp-impair.ts: whom the relay leads to counts as another machine of the local network. */
const ELSEWHERE = "10.255.255.1";
const settings = JSON.parse(process.env[FAR_VARIABLE] ?? "") as FarSettings;
const { impairment, seed } = settings;
const relay = await ForkedRelay.open({ seed, impairment, target: null });

const farEngine: ForkEngine = (listener) => {
  const open = new Set<number>();
  let frames = 0;
  let broken = false;
  const note = (line: string): void => {
    if (settings.log !== null) appendFileSync(settings.log, `${line}\n`);
  };
  const port = forkEngine({
    messages: (messages) => {
      const heard: FromEngine[] = [];
      for (const message of messages)
        if (message.type === "event" && message.event.type === "localCandidate") void told(message, message.event);
        else heard.push(message.type === "facts" ? elsewhere(message) : message);
      if (heard.length > 0) listener.messages(heard);
    },
    exited: (how) => listener.exited(how),
  });
  const told = async (
    message: Extract<FromEngine, { type: "event" }>,
    event: Extract<typeof message.event, { type: "localCandidate" }>,
  ): Promise<void> => {
    const candidate = await relay.rewrite(event.candidate);
    if (candidate !== null && open.has(message.c)) listener.messages([{ ...message, event: { ...event, candidate } }]);
  };
  const said = (message: ToEngine): ToEngine[] => {
    if (message.type === "open") {
      open.add(message.c);
      return [{ ...message, options: { ...message.options, bindAddress: "127.0.0.1" } }];
    }
    if (message.type === "close") open.delete(message.c);
    if (message.type !== "sendHeld") return [message];
    frames += 1;
    note(String(message.c));
    const isLast = broken || settings.breakAtFrame === null || frames < settings.breakAtFrame || open.size < 3;
    if (isLast) return [message];
    broken = true;
    note(`broken ${message.c}`);
    // Later, as an event of the driver would come.
    setImmediate(() =>
      listener.messages([{ type: "event", c: message.c, event: { type: "ended", reason: "failed" } }]),
    );
    return [message, { type: "close", c: message.c }];
  };
  return {
    pid: port.pid,
    kill: () => port.kill(),
    post: (messages) => port.post(messages.flatMap(said)),
  };
};

const elsewhere = (message: Extract<FromEngine, { type: "facts" }>): FromEngine => {
  const { pair } = message.facts;
  if (pair === null) return message;
  return { ...message, facts: { ...message.facts, pair: { ...pair, remote: { ...pair.remote, address: ELSEWHERE } } } };
};

const [{ runHeadless }, { startApp }] = await Promise.all([
  import("../../../src-main/host/headless/run.ts"),
  import("../../../src-main/start-app.ts"),
]);
await runHeadless(process.argv.slice(2), (options) => startApp({ ...options, forkEngine: farEngine }));
