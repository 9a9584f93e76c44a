import { assertNever } from "#shared/base/assert.ts";
import type { LinkReport, LinkView } from "#shared/ipc/views.ts";
import { reasonWords } from "./link-reasons.ts";

/** How a person is reached, in words and as the name of an icon. */
export interface LinkWords {
  kind: "lan" | "direct" | "relay" | "opening" | "none";
  label: string;
  explanation: string;
}

const CONNECTED: Record<"lan" | "direct" | "relay" | "turn" | "server", LinkWords> = {
  lan: { kind: "lan", label: "Local", explanation: "Connected within your network. Files do not leave it." },
  direct: { kind: "direct", label: "Direct", explanation: "Connected straight to this person over the internet." },
  relay: { kind: "relay", label: "Relayed", explanation: "Connected through a relay, which sees only encrypted data." },
  turn: {
    kind: "relay",
    label: "TURN relay",
    explanation: "Connected through a TURN server, which sees only encrypted data.",
  },
  server: {
    kind: "relay",
    label: "Server relay",
    explanation: "Connected through the meeting server, which sees only encrypted data.",
  },
};

const opening = (label: string, explanation: string): LinkWords => ({ kind: "opening", label, explanation });
const none = (explanation: string): LinkWords => ({ kind: "none", label: "No link", explanation });

/** They mean that nobody is there, not that something failed. */
const AWAY: ReadonlySet<string | null> = new Set(["peer_offline", "peer_closed", "peer_disabled"]);

/** `online`: whether the meeting server sees this person. */
export const linkWords = (link: LinkView | undefined, online: boolean): LinkWords => {
  if (link === undefined) return none("Messages wait at the server. Files need a connection.");
  switch (link.state) {
    case "connected":
      return CONNECTED[link.relay ?? link.path ?? "direct"];
    case "discovering":
      if (!online && AWAY.has(link.reason)) return none("Offline. Messages wait at the server.");
      return opening("Looking…", "Looking for a way to this person.");
    case "connecting":
      return opening("Connecting…", "Opening a connection.");
    case "handshaking":
      return opening("Checking…", "Checking that it is really this person.");
    case "failed": {
      const why = link.reason === null ? "The connection failed" : reasonWords(link.reason);
      return none(`${why}. Messages go through the server meanwhile.`);
    }
    case "disconnected":
      return none("Messages wait at the server. Files need a connection.");
    default:
      return assertNever(link.state, "link state");
  }
};

/** Which way a link really takes; TURN servers and the meeting server's own relay are two kinds of relay. */
export type Way = "lan" | "direct" | "turn" | "server" | "none";

export const wayOf = ({ link, attempts }: Pick<LinkReport, "link" | "attempts">): Way => {
  if (link.state !== "connected") return "none";
  const attempt = attempts.find((one) => one.generation === link.generation);
  if (attempt?.via === "relay") return "server";
  return link.path === "relay" ? "turn" : (link.path ?? "direct");
};

export interface WayWords {
  name: string;
  explanation: string;
}

export const WAY_WORDS: Record<Way, WayWords> = {
  lan: {
    name: "Local network",
    explanation: "Straight from computer to computer inside your local network. Nothing leaves it.",
  },
  direct: {
    name: "Direct",
    explanation: "Straight from computer to computer over the internet, without a server in between.",
  },
  turn: {
    name: "TURN relay",
    explanation:
      "Through a TURN server that your meeting server named. It sees both addresses, sizes and times, and only encrypted data.",
  },
  server: {
    name: "Meeting server relay",
    explanation: "Through the relay of your meeting server. It sees sizes and times, and only encrypted data.",
  },
  none: {
    name: "No connection",
    explanation: "Messages go through the meeting server and wait there. Files need a connection.",
  },
};

export const NAT_WORDS: Record<LinkReport["nat"], string> = {
  none: "No address translation: this computer has a public address of its own",
  same: "Your router keeps one port for everybody: direct connections usually work",
  varies: "Your router takes another port for each other side: direct connections often fail",
  unknown: "Not known",
};
