import rtc from "node-datachannel";
import { ok } from "#shared/base/result.ts";
import type { LinkChannel, LinkTransport, TransportDriver } from "../../src-main/links/transport.ts";

/** The bare library as a transport, for a peer that keeps no rule: it can open any channel and send anything. */
export interface RawPeer extends TransportDriver {
  /** Opens so many channels that nobody agreed on, and fills each as soon as it is open. */
  openChannels(count: number): void;
  send(channel: LinkChannel, bytes: Uint8Array): boolean;
}

export const createRawPeer = (): RawPeer => {
  let pc: InstanceType<typeof rtc.PeerConnection> | null = null;
  const channels = new Map<LinkChannel, ReturnType<InstanceType<typeof rtc.PeerConnection>["createDataChannel"]>>();
  /** What nobody references is destroyed. */
  const kept: unknown[] = [];
  const send = (channel: LinkChannel, bytes: Uint8Array): boolean => {
    try {
      channels.get(channel)?.sendMessageBinary(bytes);
      return true;
    } catch {
      return false;
    }
  };
  return {
    openChannels(count) {
      for (let i = 0; i < count; i += 1) {
        try {
          const channel = pc?.createDataChannel(`junk ${i}`);
          kept.push(channel);
          channel?.onClosed(() => undefined);
          channel?.onOpen(() => {
            try {
              for (let n = 0; n < 100; n += 1) channel.sendMessageBinary(new Uint8Array(1000));
            } catch {
              // Cut off: what we are here for.
            }
          });
        } catch {
          return;
        }
      }
    },
    send,
    open({ iceServers }, onEvent) {
      const made = new rtc.PeerConnection("raw", {
        iceServers: [...iceServers],
        maxMessageSize: 512 * 1024,
        disableAutoNegotiation: true,
      });
      pc = made;
      kept.push(made);
      let closed = false;
      const tell = (event: Parameters<typeof onEvent>[0]): void => {
        setImmediate(() => {
          if (!closed) onEvent(event);
        });
      };
      made.onStateChange((state) => {
        if (state === "failed" || state === "closed") tell({ type: "ended", reason: state });
      });
      made.onLocalDescription((sdp, kind) => {
        if (kind === "offer" || kind === "answer") tell({ type: "localDescription", kind, sdp });
      });
      made.onLocalCandidate((candidate, mid) => tell({ type: "localCandidate", candidate, mid }));
      for (const [name, id] of [["control", 0] as const, ["bulk", 1] as const]) {
        const channel = made.createDataChannel(name, { negotiated: true, id, unordered: name === "bulk" });
        channels.set(name, channel);
        channel.onClosed(() => undefined);
        channel.onMessage((data) => {
          if (typeof data !== "string") tell({ type: "message", channel: name, bytes: new Uint8Array(data) });
        });
        channel.onOpen(() => tell({ type: "channelOpen", channel: name }));
      }
      const early: [string, string][] = [];
      let described = false;
      const describe = (sdp: string, kind: "offer" | "answer") => {
        made.setRemoteDescription(sdp, kind);
        described = true;
        for (const [candidate, mid] of early) made.addRemoteCandidate(candidate, mid);
        return ok(undefined);
      };
      const transport: LinkTransport = {
        createOffer: () => {
          made.setLocalDescription("offer");
          return ok(undefined);
        },
        acceptOffer: (sdp) => {
          describe(sdp, "offer");
          made.setLocalDescription("answer");
          return ok(undefined);
        },
        acceptAnswer: (sdp) => describe(sdp, "answer"),
        addRemoteCandidate: (candidate, mid) => {
          if (described) made.addRemoteCandidate(candidate, mid);
          else early.push([candidate, mid]);
          return ok(undefined);
        },
        send: (channel, bytes) => {
          send(channel, bytes);
          return ok(undefined);
        },
        bufferedAmount: () => 0,
        remoteFingerprint: () => made.remoteFingerprint()?.value.toUpperCase() ?? null,
        selectedPair: () => made.getSelectedCandidatePair(),
        bytesReceived: () => made.bytesReceived(),
        close: () => {
          if (closed) return;
          closed = true;
          made.close();
        },
      };
      return ok(transport);
    },
    dispose: () => rtc.cleanup(),
  };
};
