import type { Bytes } from "#shared/base/bytes.ts";
import type { LinkChannel, LinkTransport, TransportEvent, TransportOptions } from "../../src-main/links/transport.ts";
import type { FileSpec } from "../../src-main/transfer/chunk-worker-protocol.ts";

/**
 * Where WebRTC and the chunk worker live, for `isolation.ts`.
 *
 *   main    both in the main process (WebRTC in its thread)
 *   worker  WebRTC in a worker thread
 *   ipc     WebRTC in a child process, frames over the IPC channel of `fork`
 *   socket  WebRTC in a child process, frames over a local socket, everything else over IPC
 *   engine  WebRTC and the chunk worker in a child process: frames stay there, the main process sees their headers
 */
export const modes = ["main", "worker", "ipc", "socket", "engine"] as const;
export type Mode = (typeof modes)[number];

/** What the bench stores and reads: null moves bytes only. */
export interface Store {
  readonly spec: FileSpec;
  readonly databasePath: string;
  readonly path: string;
}

/** A frame that stays in the engine; the main process knows it by this number. */
export type FrameRef = number;

export type ToEngine =
  | { readonly type: "open"; readonly c: number; readonly options: TransportOptions }
  | { readonly type: "offer"; readonly c: number }
  | { readonly type: "acceptOffer" | "acceptAnswer"; readonly c: number; readonly sdp: string }
  | { readonly type: "candidate"; readonly c: number; readonly candidate: string; readonly mid: string }
  | { readonly type: "send"; readonly c: number; readonly channel: LinkChannel; readonly bytes: Uint8Array }
  | { readonly type: "close"; readonly c: number }
  | { readonly type: "throw" }
  | { readonly type: "sendFrame"; readonly c: number; readonly frame: FrameRef; readonly head: Uint8Array }
  | { readonly type: "read"; readonly job: number; readonly indices: readonly number[] }
  | { readonly type: "store"; readonly frame: FrameRef; readonly index: number }
  | { readonly type: "drop"; readonly frame: FrameRef };

export type FromEngine =
  | { readonly type: "ready" }
  | { readonly type: "event"; readonly c: number; readonly event: TransportEvent }
  | { readonly type: "refused"; readonly c: number }
  /** Bytes of this channel that left the engine's queues, since the connection opened. */
  | { readonly type: "drained"; readonly c: number; readonly channel: LinkChannel; readonly bytes: number }
  | {
      readonly type: "facts";
      readonly c: number;
      readonly fingerprint: string | null;
      readonly pair: ReturnType<LinkTransport["selectedPair"]>;
      readonly bytesReceived: number;
    }
  | {
      readonly type: "frame";
      readonly c: number;
      readonly frame: FrameRef;
      readonly head: Uint8Array;
      readonly length: number;
    }
  | {
      readonly type: "frames";
      readonly job: number;
      readonly frames: readonly { readonly frame: FrameRef; readonly index: number; readonly length: number }[];
    }
  | { readonly type: "stored"; readonly frame: FrameRef };

const HEAD_BYTES = 8;

/** `u32 length | u32 connection | bytes`, in a buffer of its own: the caller's is filled again at once. */
export const packFrame = (c: number, bytes: Uint8Array): Buffer => {
  const packed = Buffer.allocUnsafeSlow(HEAD_BYTES + bytes.length);
  packed.writeUInt32LE(bytes.length, 0);
  packed.writeUInt32LE(c, 4);
  packed.set(bytes, HEAD_BYTES);
  return packed;
};

/** Takes what a socket gives, whole or in parts, and calls back with each frame in a buffer of its own. */
export const frameReader = (onFrame: (c: number, bytes: Bytes) => void): ((part: Uint8Array) => void) => {
  const head = Buffer.alloc(HEAD_BYTES);
  let headFilled = 0;
  let body: Bytes | null = null;
  let filled = 0;
  return (part) => {
    for (let at = 0; at < part.length; ) {
      if (body === null) {
        const taken = Math.min(HEAD_BYTES - headFilled, part.length - at);
        head.set(part.subarray(at, at + taken), headFilled);
        headFilled += taken;
        at += taken;
        if (headFilled < HEAD_BYTES) return;
        body = new Uint8Array(Buffer.allocUnsafeSlow(head.readUInt32LE(0)).buffer);
        filled = 0;
      }
      const taken = Math.min(body.length - filled, part.length - at);
      body.set(part.subarray(at, at + taken), filled);
      filled += taken;
      at += taken;
      if (filled < body.length) return;
      const whole = body;
      body = null;
      headFilled = 0;
      onFrame(head.readUInt32LE(4), whole);
    }
  };
};
