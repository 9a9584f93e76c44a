import type { NetworkPolicy } from "#shared/ipc/views.ts";

/** A way to reach a contact that the person can choose, with what it reveals and what it costs. */
export interface PolicyChoice {
  policy: NetworkPolicy;
  label: string;
  reveals: string;
  costs: string;
}

export const POLICY_CHOICES: readonly PolicyChoice[] = [
  {
    policy: "direct",
    label: "Any way, direct first",
    reveals:
      "This contact learns your addresses on the internet and in your local network; the STUN and TURN servers that your meeting server names learn the first.",
    costs: "The fastest: files take the shortest way that exists.",
  },
  {
    policy: "afterAccept",
    label: "Direct only after I accepted",
    reveals:
      "Everything goes over the meeting server, and this contact does not learn your addresses, until you accept it yourself; from then on as above.",
    costs: "Slow until then.",
  },
  {
    policy: "relay",
    label: "Over the meeting server only",
    reveals:
      "This contact never learns your addresses. The meeting server passes everything on: it sees when and how much you exchange, never what.",
    costs: "Slow: a server limits what each person may send this way, usually to about 2 MB/s.",
  },
  {
    policy: "lan",
    label: "Local network only",
    reveals:
      "This contact learns your address inside the local network and no other. Nothing of your files passes the internet.",
    costs: "Files wait until both of you are in the same local network.",
  },
];
