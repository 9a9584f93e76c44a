import type { Bytes } from "#shared/base/bytes.ts";
import { ENGINE_EVENT_BYTES } from "#shared/base/limits.ts";
import type { LinkChannel, LinkTransport, TransportEvent, TransportOptions } from "./transport.ts";

/**
 * Messages between the process where links live ({@link RemoteDriver}) and the one of the WebRTC driver
 * ({@link DriverServer}). `c` names a connection. Both ends are the same build, so they are typed and not validated.
 */
export type ToDriver =
  | { readonly type: "open"; readonly c: number; readonly options: TransportOptions }
  | { readonly type: "offer"; readonly c: number }
  | { readonly type: "acceptOffer" | "acceptAnswer"; readonly c: number; readonly sdp: string }
  | { readonly type: "candidate"; readonly c: number; readonly candidate: string; readonly mid: string }
  | { readonly type: "send"; readonly c: number; readonly channel: LinkChannel; readonly bytes: Uint8Array }
  | { readonly type: "sendHeld"; readonly c: number; readonly frame: number; readonly head: Bytes }
  /** {@link eventCost} of all events of this connection that were handled. */
  | { readonly type: "seen"; readonly c: number; readonly cost: number }
  | { readonly type: "close"; readonly c: number };

/** What can be asked of a transport at any time, told whenever it changes. */
export interface Facts {
  readonly fingerprint: string | null;
  readonly pair: ReturnType<LinkTransport["selectedPair"]>;
  readonly bytesReceived: number;
}

export type FromDriver =
  | { readonly type: "event"; readonly c: number; readonly event: TransportEvent }
  /** Bytes of this channel that left the queues of the driver's process, since the connection opened. */
  | { readonly type: "drained"; readonly c: number; readonly channel: LinkChannel; readonly bytes: number }
  | { readonly type: "facts"; readonly c: number; readonly facts: Facts };

/** What an event that nobody has handled yet costs; both sides count it. */
export const eventCost = (event: TransportEvent): number =>
  ENGINE_EVENT_BYTES + (event.type === "message" ? (event.bytes?.length ?? 0) : 0);
