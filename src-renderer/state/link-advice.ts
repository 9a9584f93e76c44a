import type { LinkAttemptView, LinkReport, ServerView } from "#shared/ipc/views.ts";
import { IDENTITY_REASONS, reasonWords } from "./link-reasons.ts";
import { type Way, wayOf } from "./link-words.ts";

/** What stands in the way of a connection, or of a better one, and what would help. */
export interface Advice {
  /** Names the finding in a copied report, which has no names of people in it. */
  id: string;
  tone: "good" | "info" | "warn" | "bad";
  title: string;
  text: string;
  /** What the person can do about it here. */
  action: "connect" | "verify" | null;
}

export interface AdviceFacts {
  report: LinkReport;
  /** The contact's name as it is shown. */
  name: string;
  online: boolean;
  acceptedByMe: boolean;
  keyChanged: boolean;
  server: ServerView | null;
}

const advice = (
  tone: Advice["tone"],
  id: string,
  title: string,
  text: string,
  action: Advice["action"] = null,
): Advice => ({
  ...{ id, tone, title, text, action },
});

/** The most important first; never empty. */
export const adviceFor = (facts: AdviceFacts): Advice[] => {
  const way = wayOf(facts.report);
  const found = way === "none" ? withoutLink(facts) : withLink(facts, way);
  return [...serverTrouble(facts), ...found];
};

const serverTrouble = ({ server, report }: AdviceFacts): Advice[] => {
  if (server === null || server.state === "connected") return [];
  const lives = report.link.state === "connected" ? "The connection in use does not need it, a new one does." : "";
  return [
    advice(
      "bad",
      "server_unreachable",
      "The meeting server cannot be reached",
      `New connections are arranged over it. Check this computer's internet access and the server in the settings. ${lives}`.trim(),
    ),
  ];
};

const withLink = (facts: AdviceFacts, way: Exclude<Way, "none">): Advice[] => {
  if (way === "lan") return [advice("good", "best_path", "This is the best way there is", "Nothing to improve.")];
  if (way === "direct")
    return [
      advice(
        "good",
        "direct_path",
        "This is the best way over the internet",
        "Only the same local network would be faster.",
      ),
    ];
  const chosen = chosenRelay(facts);
  if (chosen !== null) return [chosen];
  const slower =
    way === "turn"
      ? "What you send takes a detour over a TURN server: somewhat slower, and the server's owner pays for it."
      : "What you send takes a detour over the meeting server, which is slower and limited for each person.";
  const obstacles = directObstacles(facts);
  return [
    advice("info", "relayed", "It works, but not directly", slower),
    ...(obstacles.length > 0 ? obstacles : [searching(facts)]),
  ];
};

/** Not a fault: somebody wants it so. */
const chosenRelay = ({ report, name, acceptedByMe }: AdviceFacts): Advice | null => {
  if (report.policy === "relay")
    return advice("good", "relay_chosen", "As you chose", `${name} does not learn your address. It costs speed.`);
  if (report.policy === "afterAccept" && !acceptedByMe)
    return advice(
      "good",
      "relay_until_accepted",
      "As you chose, until you accept",
      `You have not accepted ${name} yourself yet. A direct connection is tried as soon as you do, below.`,
    );
  if (report.attempts.some(({ reason }) => reason === "peer_relay_only"))
    return advice(
      "info",
      "relay_chosen_there",
      `${name} allows the meeting server only`,
      "That is the other side's choice; nothing on this side changes it.",
    );
  return null;
};

const searching = ({ name }: AdviceFacts): Advice =>
  advice(
    "info",
    "searching",
    "A direct way is looked for from time to time",
    `If one is found, the connection moves over by itself. Ask ${name} to look at this page too: the obstacle may be there.`,
  );

/** The newest attempt that looked for a direct way and is not under way any more, or the newest at all. */
const lastDirect = ({ report }: AdviceFacts): LinkAttemptView | undefined => {
  const direct = report.attempts.filter(({ via }) => via === "rtc");
  return direct.findLast(({ result }) => result !== "trying") ?? direct.at(-1);
};

/** What can be told about why no direct way was found. */
const directObstacles = (facts: AdviceFacts): Advice[] => {
  const { report, name } = facts;
  const attempt = lastDirect(facts);
  if (!report.directAllowed || attempt === undefined || report.policy === "lan") return [];
  const found: Advice[] = [];
  if (isUdpSilent(report, attempt))
    found.push(
      advice(
        "warn",
        "udp_blocked",
        "UDP seems to be blocked on your side",
        "No STUN server answered. Direct connections and TURN need UDP: allow outgoing UDP for Weir in the firewall, or ask whoever runs this network. Until then the meeting server's relay is used.",
      ),
    );
  else if (attempt.servers?.stun === 0)
    found.push(
      advice(
        "warn",
        "no_stun",
        "This meeting server names no STUN server",
        "Without one, this computer cannot learn its public address, and direct connections work within the same network only. Whoever runs the meeting server can add one.",
      ),
    );
  if (report.nat === "varies")
    found.push(
      advice(
        "warn",
        "nat_varies",
        "Your router makes direct connections hard",
        "It takes another port for each other side (a symmetric NAT). Another network, a forwarded port or IPv6 would help; so would a friendlier router on the other side.",
      ),
    );
  if (attempt.servers !== null && attempt.servers.turn === 0)
    found.push(
      advice(
        "info",
        "no_turn",
        "No TURN server at this meeting server",
        "A TURN server is the faster detour where no direct way exists. Whoever runs the meeting server can add one.",
      ),
    );
  if (attempt.result !== "trying" && attempt.localCandidates.length > 0 && attempt.remoteCandidates.length === 0)
    found.push(
      advice(
        "info",
        "no_addresses_there",
        `${name} offered no address`,
        "The other side may be busy starting, block UDP, or not want direct connections with you.",
      ),
    );
  return found;
};

/** A probe says it for sure; otherwise an attempt that was to ask a STUN server and learned no public address. */
const isUdpSilent = ({ nat, stun }: LinkReport, attempt: LinkAttemptView): boolean => {
  if (stun !== null && stun.asked > 0) return stun.answered === 0;
  const asked = (attempt.servers?.stun ?? 0) > 0;
  const learned = attempt.localCandidates.some((type) => type === "srflx" || type === "relay");
  return asked && !learned && nat === "unknown" && attempt.localCandidates.length > 0 && attempt.result !== "trying";
};

const withoutLink = (facts: AdviceFacts): Advice[] => {
  const { report, name, online, server } = facts;
  const { link } = report;
  const reason = link.reason ?? report.attempts.at(-1)?.reason ?? null;
  if (facts.keyChanged || (reason !== null && IDENTITY_REASONS.has(reason))) return [identity(facts, reason)];
  if (link.state === "disconnected")
    return [
      advice(
        "warn",
        "switched_off",
        "Connections are switched off",
        "You disconnected. Messages still go through the meeting server; files wait.",
        "connect",
      ),
    ];
  if (server !== null && server.state !== "connected") return [];
  if (!online)
    return [
      advice(
        "info",
        "contact_offline",
        `${name} is offline`,
        "Nothing to mend: Weir connects by itself as soon as both of you are online. Messages wait at the meeting server.",
      ),
    ];
  const others = directObstacles(facts);
  return [...refused(facts, reason), ...others, ...(others.length === 0 ? [inGeneral(facts, reason)] : [])];
};

const identity = ({ name, keyChanged }: AdviceFacts, reason: string | null): Advice =>
  keyChanged
    ? advice("bad", "key_changed", `${name}'s key changed`, "Compare the safety number before you go on.", "verify")
    : advice(
        "bad",
        "wrong_identity",
        `Weir refused a connection that was not ${name}'s`,
        `${reasonWords(reason ?? "wrong_user")}. Compare the safety number on another channel, and try another network.`,
        "verify",
      );

/** Reasons that name their remedy. */
const refused = ({ report, name }: AdviceFacts, reason: string | null): Advice[] => {
  if (!report.directAllowed && !report.relayAllowed)
    return [advice("warn", "nothing_allowed", "No way is allowed", "Choose another network policy below.")];
  if (report.policy === "lan")
    return [
      advice(
        "info",
        "lan_only",
        "Not in the same local network",
        `You allow the local network only. Files wait until you and ${name} are in the same one, or until you choose otherwise below.`,
      ),
    ];
  switch (reason) {
    case "wrong_version":
      return [
        advice(
          "bad",
          "wrong_version",
          "The two versions of Weir do not understand each other",
          "Update Weir on both sides.",
        ),
      ];
    case "too_many_links":
    case "busy":
    case "peer_busy":
      return [advice("warn", "too_many", "Too many connections at once", "It is tried again by itself in a moment.")];
    case "peer_disabled":
    case "peer_not_wanted":
      return [
        advice(
          "info",
          "off_there",
          `${name} switched the connection off`,
          "It comes back when the other side wants it.",
        ),
      ];
    default:
      return [];
  }
};

const inGeneral = ({ report, name }: AdviceFacts, reason: string | null): Advice => {
  const { state } = report.link;
  if (state === "failed")
    return advice(
      "warn",
      "failed",
      "The last attempt failed",
      `${reasonWords(reason ?? "")}. It is tried again by itself; a test tells more.`,
    );
  return advice(
    "info",
    "under_way",
    "A connection is being made",
    `${name} is online. This takes a few seconds at most.`,
  );
};
