import type { NetworkPolicy } from "#shared/ipc/views.ts";
import type { AllowedVias } from "./link-state.ts";
import { isLanCandidate } from "./sdp.ts";

/** What a contact's policy comes to, once it is known whether we accepted this contact ourselves. */
export type EffectivePolicy = "direct" | "relay" | "lan";

/** A contact that is not accepted has no link at all, whatever its policy. */
export const effectivePolicy = (policy: NetworkPolicy, acceptedByMe: boolean): EffectivePolicy => {
  if (policy === "afterAccept") return acceptedByMe ? "direct" : "relay";
  return policy;
};

/**
 * Relayed links go over the rendezvous server, never over WebRTC with TURN only: libdatachannel connects directly even
 * then, and so tells the peer our address. No connection of that kind is made at all.
 */
export const viasOf = (policy: EffectivePolicy, hasRelay: boolean): AllowedVias => ({
  rtc: policy === "lan" ? "lan" : policy === "direct",
  relay: policy !== "lan" && hasRelay,
});

/** Whether a candidate may leave, or be used when it comes from the peer: packets to it tell our address too. */
export const admits = (policy: EffectivePolicy, candidate: string): boolean => {
  if (policy === "direct") return true;
  return policy === "lan" && isLanCandidate(candidate);
};
