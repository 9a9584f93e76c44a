import { assertNever } from "#shared/base/assert.ts";
import type { LinkView } from "#shared/ipc/views.ts";

/** How a person is reached, in words and as the name of an icon. */
export interface LinkWords {
  kind: "lan" | "direct" | "relay" | "opening" | "none";
  label: string;
  explanation: string;
}

const CONNECTED: Record<"lan" | "direct" | "relay", LinkWords> = {
  lan: { kind: "lan", label: "Local", explanation: "Connected within your network. Files do not leave it." },
  direct: { kind: "direct", label: "Direct", explanation: "Connected straight to this person over the internet." },
  relay: { kind: "relay", label: "Relayed", explanation: "Connected through a relay, which sees only encrypted data." },
};

const opening = (label: string, explanation: string): LinkWords => ({ kind: "opening", label, explanation });

export const linkWords = (link: LinkView | undefined): LinkWords => {
  const none = (explanation: string): LinkWords => ({ kind: "none", label: "No link", explanation });
  if (link === undefined) return none("Messages wait at the server. Files need a connection.");
  switch (link.state) {
    case "connected":
      return CONNECTED[link.path ?? "direct"];
    case "discovering":
      return opening("Looking…", "Looking for a way to this person.");
    case "connecting":
      return opening("Connecting…", "Opening a direct connection.");
    case "handshaking":
      return opening("Checking…", "Checking that it is really this person.");
    case "failed":
      return none(`${link.reason ?? "The connection failed"}. Messages go through the server meanwhile.`);
    case "disconnected":
      return none("Messages wait at the server. Files need a connection.");
    default:
      return assertNever(link.state, "link state");
  }
};
