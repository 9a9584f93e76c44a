import rtc from "node-datachannel";
import type { Disposable } from "#shared/base/disposable.ts";
import type { Env } from "#shared/base/env.ts";
import { LINK_MESSAGE_BYTES_MAX, RTC_CLEANUP_TIMEOUT_MS, SCTP_BUFFER_BYTES } from "#shared/base/limits.ts";
import { fail, messageOf, ok, type Result } from "#shared/base/result.ts";
import type {
  LinkChannel,
  LinkTransport,
  TransportDriver,
  TransportError,
  TransportEvent,
  TransportOptions,
} from "./transport.ts";

/**
 * The only importer of node-datachannel. What its callers need not know, because it stays in this file:
 *
 * - An exception inside a native callback aborts the process. Callbacks here do nothing but put an event into a queue;
 *   the queue is emptied outside of them, each handler in a guard.
 * - A handler that is attached late reorders messages, one that is replaced loses them: all are attached once, at
 *   creation, and go through a variable that `close` turns off.
 * - Objects that are not referenced are collected and close; a channel without `onClosed` crashes the shutdown. Both
 *   kinds stay in `live` until the library itself reported them closed.
 * - A channel that nobody reads blocks the library's worker threads: a channel we did not negotiate gets an empty
 *   reader in the very callback that announces it, and is closed.
 * - A remote candidate before the remote description throws: candidates wait for it.
 * - The event loop never ends while the library is up: the last driver to go shuts it down, once everything is closed.
 */
export type RtcChannel = LinkChannel;
export type RtcEvent = TransportEvent;
export type RtcError = TransportError;
export type RtcConnection = LinkTransport;
export type RtcOptions = TransportOptions;
export type RtcDriver = TransportDriver;

type PeerConnection = InstanceType<typeof rtc.PeerConnection>;
type DataChannel = ReturnType<PeerConnection["createDataChannel"]>;

/** Attempts a native call: the addon throws for every failure, and nothing of it may reach a callback. */
const attempt = <T>(what: string, call: () => T): Result<T, RtcError> => {
  try {
    return ok(call());
  } catch (error) {
    return fail("rtc_failed", `The connection could not ${what}: ${messageOf(error)}`);
  }
};

/** Everything the addon must not lose sight of; module-wide, because the library is process-wide. */
const live = new Set<PeerConnection | DataChannel>();
let openDrivers = 0;
let settingsApplied = false;
/** Set while the last driver is gone and the library waits for its objects. */
let shutdown: { readonly timer: Disposable; readonly run: () => void } | null = null;

const released = (item: PeerConnection | DataChannel): void => {
  live.delete(item);
  // Not in the callback that released the last object: cleanup destroys that very callback.
  if (live.size === 0 && shutdown !== null) setImmediate(shutdown.run);
};

let tellShutDown = (): void => undefined;
/** Resolves when the library is down next, after the last driver was disposed of: the process may end then. */
export const rtcShutDown = (): Promise<void> =>
  new Promise((resolve) => {
    tellShutDown = resolve;
  });

/** Native objects that are not yet released; zero again soon after everything was closed. */
export const liveRtcObjects = (): number => live.size;

const cancelShutdown = (): void => {
  shutdown?.timer.dispose();
  shutdown = null;
};

/** Shuts the library down once every object has been reported closed, or does not get there in time. */
const shutDownWhenIdle = (env: Env): void => {
  const run = (): void => {
    // A new driver came, or this ran already.
    if (shutdown?.run !== run) return;
    cancelShutdown();
    const result = attempt("shut down", () => rtc.cleanup());
    live.clear();
    if (!result.ok) env.log.error("rtc shutdown failed", { reason: result.error.message });
    tellShutDown();
  };
  shutdown = { timer: env.clock.setTimer(RTC_CLEANUP_TIMEOUT_MS, run), run };
  if (live.size === 0) setImmediate(run);
};

export const createRtcDriver = (env: Env): RtcDriver => {
  if (!settingsApplied) {
    settingsApplied = true;
    rtc.setSctpSettings({ recvBufferSize: SCTP_BUFFER_BYTES, sendBufferSize: SCTP_BUFFER_BYTES });
  }
  openDrivers += 1;
  cancelShutdown();
  let disposed = false;
  const connections = new Set<RtcConnection>();

  // The hand-over: callbacks push, a microtask empties. One queue keeps the order in which callbacks came.
  let queue: { event: RtcEvent; to: (event: RtcEvent) => void }[] = [];
  const empty = (): void => {
    const batch = queue;
    queue = [];
    for (const { event, to } of batch) {
      try {
        to(event);
      } catch (error) {
        env.log.error("rtc event handler failed", { event: event.type, reason: messageOf(error) });
      }
    }
  };
  const handOver = (event: RtcEvent, to: (event: RtcEvent) => void): void => {
    queue.push({ event, to });
    if (queue.length === 1) queueMicrotask(empty);
  };

  return {
    open(options, onEvent) {
      if (disposed) return fail("rtc_failed", "The connection could not open: Weir is shutting down.");
      const opened = openConnection(options, onEvent, handOver);
      if (!opened.ok) return opened;
      const connection: RtcConnection = {
        ...opened.value,
        close() {
          connections.delete(connection);
          opened.value.close();
        },
      };
      connections.add(connection);
      return ok(connection);
    },
    dispose() {
      if (disposed) return;
      disposed = true;
      for (const connection of [...connections]) connection.close();
      openDrivers -= 1;
      if (openDrivers === 0) shutDownWhenIdle(env);
    },
  };
};

const channelIds: Readonly<Record<RtcChannel, number>> = { control: 0, bulk: 1 };

const openConnection = (
  options: RtcOptions,
  onEvent: (event: RtcEvent) => void,
  handOver: (event: RtcEvent, to: (event: RtcEvent) => void) => void,
): Result<RtcConnection, RtcError> => {
  let closed = false;
  const deliver = (event: RtcEvent): void => {
    if (!closed) onEvent(event);
  };
  const tell = (event: RtcEvent): void => handOver(event, deliver);

  const made = attempt(
    "open",
    () =>
      new rtc.PeerConnection("weir", {
        iceServers: [...options.iceServers],
        maxMessageSize: LINK_MESSAGE_BYTES_MAX,
        disableAutoNegotiation: true,
        ...(options.mtu === undefined ? {} : { mtu: options.mtu }),
        ...(options.bindAddress === undefined ? {} : { bindAddress: options.bindAddress }),
      }),
  );
  if (!made.ok) return made;
  const pc = made.value;
  live.add(pc);
  pc.onStateChange((state) => {
    if (state === "closed") released(pc);
    if (state === "disconnected") tell({ type: "unsteady" });
    if (state === "failed" || state === "closed") tell({ type: "ended", reason: state });
  });
  pc.onLocalDescription((sdp, kind) => {
    if (kind === "offer" || kind === "answer") tell({ type: "localDescription", kind, sdp });
  });
  pc.onLocalCandidate((candidate, mid) => tell({ type: "localCandidate", candidate, mid }));
  pc.onDataChannel((channel) => {
    live.add(channel);
    channel.onMessage(ignore);
    channel.onClosed(() => released(channel));
    queueMicrotask(() => attempt("close a channel", () => channel.close()));
    tell({ type: "unexpectedChannel" });
  });

  const addChannel = (name: RtcChannel): DataChannel => {
    const channel = pc.createDataChannel(name, { negotiated: true, id: channelIds[name], unordered: name === "bulk" });
    live.add(channel);
    channel.onClosed(() => {
      released(channel);
      tell({ type: "channelClosed", channel: name });
    });
    channel.onError(() => tell({ type: "channelError", channel: name }));
    channel.onMessage((data) => tell({ type: "message", channel: name, bytes: ownBytes(data) }));
    channel.onBufferedAmountLow(() => tell({ type: "queueLow", channel: name }));
    channel.onOpen(() => tell({ type: "channelOpen", channel: name }));
    channel.setBufferedAmountLowThreshold(options.bulkLowBytes);
    return channel;
  };
  const added = attempt("add its channels", () => ({ control: addChannel("control"), bulk: addChannel("bulk") }));
  if (!added.ok) {
    attempt("close", () => pc.close());
    return added;
  }
  const channels: Record<RtcChannel, DataChannel> = added.value;

  let waiting: { candidate: string; mid: string }[] | null = [];
  const describeRemote = (sdp: string, kind: "offer" | "answer"): Result<void, RtcError> => {
    const set = attempt("take the peer's description", () => pc.setRemoteDescription(sdp, kind));
    if (!set.ok) return set;
    const early = waiting ?? [];
    waiting = null;
    // One unusable candidate (an address family that this machine lacks) must not cost the others.
    for (const { candidate, mid } of early) attempt("add a candidate", () => pc.addRemoteCandidate(candidate, mid));
    return ok(undefined);
  };

  return ok({
    createOffer: () => attempt("make an offer", () => pc.setLocalDescription("offer")),
    acceptOffer(sdp) {
      const set = describeRemote(sdp, "offer");
      return set.ok ? attempt("make an answer", () => pc.setLocalDescription("answer")) : set;
    },
    acceptAnswer: (sdp) => describeRemote(sdp, "answer"),
    addRemoteCandidate(candidate, mid) {
      if (waiting !== null) {
        waiting.push({ candidate, mid });
        return ok(undefined);
      }
      return attempt("add a candidate", () => pc.addRemoteCandidate(candidate, mid));
    },
    send(channel, bytes) {
      // `false` from the addon means "queued", not "failed"; a channel that is gone throws.
      const sent = attempt("send", () => channels[channel].sendMessageBinary(bytes));
      return sent.ok ? ok(undefined) : sent;
    },
    bufferedAmount(channel) {
      const amount = attempt("tell its queue", () => channels[channel].bufferedAmount());
      return amount.ok ? amount.value : 0;
    },
    remoteFingerprint() {
      const found = attempt("tell the fingerprint", () => pc.remoteFingerprint());
      return found.ok && found.value?.algorithm === "sha-256" ? found.value.value.toUpperCase() : null;
    },
    selectedPair() {
      const pair = attempt("tell its path", () => pc.getSelectedCandidatePair());
      return pair.ok ? pair.value : null;
    },
    bytesReceived() {
      const bytes = attempt("tell its bytes", () => pc.bytesReceived());
      return bytes.ok ? bytes.value : 0;
    },
    close() {
      if (closed) return;
      closed = true;
      // It closes its channels too. Closing them one by one before that loses their `onClosed` once in some hundred times.
      attempt("close", () => pc.close());
    },
  });
};

const ignore = (): void => undefined;

/** The addon copies every message into an ArrayBuffer of its own; the plain view saves callers from Buffer's extras. */
const ownBytes = (data: string | Buffer | ArrayBuffer): Uint8Array<ArrayBuffer> | null => {
  if (typeof data === "string") return null;
  if (data instanceof ArrayBuffer) return new Uint8Array(data);
  if (data.buffer instanceof ArrayBuffer) return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  return new Uint8Array(data);
};
