import { io, type Socket } from "socket.io-client";
import * as parser from "socket.io-parser";
import { toDisposable } from "#shared/base/disposable.ts";
import { SERVER_MESSAGE_BYTES_MAX } from "#shared/base/limits.ts";
import { type AppError, fail, ok, type Result } from "#shared/base/result.ts";
import { boundedParser } from "#shared/rendezvous/bounded-parser.ts";
import type { RelaySender } from "./relay-lines.ts";
import type { SendRequest } from "./request-queue.ts";

/** What a client reports. Nothing is reported any more once it was disposed. */
export interface ClientEvents {
  challenged(challenge: unknown): void;
  /** `taken` acknowledges a push to the server. */
  pushed(push: unknown, taken: () => void): void;
  relayed(frame: unknown): void;
  lost(error: AppError, byServer: boolean): void;
}

/** One connection attempt and the connection it becomes. It never reconnects by itself. */
export interface Client extends RelaySender {
  readonly send: SendRequest;
  /** `host:port` as dialled, without a port where it is the scheme's own: what the Host header says too. */
  readonly host: string;
  dispose(): void;
}

const PARSER = boundedParser(parser);

/** Checks a server address: `ws://host[:port]` or `wss://host[:port]`, and nothing else in it. */
export const parseServerUrl = (text: string): Result<URL> => {
  const url = URL.canParse(text) ? new URL(text) : null;
  const plain =
    url !== null &&
    (url.protocol === "ws:" || url.protocol === "wss:") &&
    url.hostname !== "" &&
    url.pathname.replace("/", "") === "" &&
    url.search + url.hash + url.username + url.password === "";
  if (plain) return ok(url);
  return fail(
    "bad_server_url",
    "The server address must look like wss://host or ws://host:port. Correct it in the settings.",
  );
};

/**
 * What socket.io-client takes but its types do not have. It passes the options of the websocket library on; and no timeout,
 * because whoever opens a client has one, and must be able to tell silence from a refusal.
 */
const untypedOptions: object = { timeout: false, perMessageDeflate: false, maxPayload: SERVER_MESSAGE_BYTES_MAX };

export const openClient = (url: URL, events: ClientEvents): Client => {
  const socket = io(`${url.protocol}//${url.host}`, {
    transports: ["websocket"],
    reconnection: false,
    forceNew: true,
    autoConnect: false,
    parser: PARSER,
    ...untypedOptions,
  });
  let open = true;
  const end = toDisposable(() => {
    open = false;
    socket.removeAllListeners();
    socket.disconnect();
  });
  const lost = (error: AppError, byServer: boolean): void => {
    if (!open) return;
    end.dispose();
    events.lost(error, byServer);
  };
  listen(socket, url.host, events, () => open, lost);
  socket.connect();
  return {
    host: url.host,
    send: (request, answered) =>
      socket.emit("request", request, (answer: unknown) => {
        if (open) answered(answer);
      }),
    relay: (frame) => void socket.emit("relay", frame),
    relayAck: (ack) => void socket.emit("relayAck", ack),
    dispose: () => end.dispose(),
  };
};

const listen = (
  socket: Socket,
  host: string,
  events: ClientEvents,
  isOpen: () => boolean,
  lost: (error: AppError, byServer: boolean) => void,
): void => {
  socket.on("challenge", (challenge: unknown) => {
    if (isOpen()) events.challenged(challenge);
  });
  socket.on("push", (push: unknown, acknowledge: unknown) => {
    if (!isOpen()) return;
    events.pushed(push, () => {
      if (typeof acknowledge === "function" && isOpen()) acknowledge();
    });
  });
  socket.on("relay", (frame: unknown) => {
    if (isOpen()) events.relayed(frame);
  });
  socket.on("connect_error", (error) => lost(unreachable(host, error), false));
  socket.on("disconnect", (reason) => {
    const byServer = reason === "io server disconnect";
    lost(byServer ? sentAway(host) : connectionLost(host), byServer);
  });
};

/** The code of the operating system or TLS says most; it is somewhere in what the libraries wrap around it. */
const causeOf = (error: unknown, depth = 0): string | null => {
  if (typeof error !== "object" || error === null || depth > 4) return null;
  if ("code" in error && typeof error.code === "string" && /^[A-Z_]{3,64}$/.test(error.code)) return error.code;
  for (const key of ["description", "error", "cause", "context"]) {
    const inner = causeOf((error as Record<string, unknown>)[key], depth + 1);
    if (inner !== null) return inner;
  }
  return null;
};

const unreachable = (host: string, error: unknown): AppError => {
  const cause = causeOf(error);
  const why = cause === null ? "" : ` (${cause})`;
  return {
    type: "server_unreachable",
    message: `The server ${host} cannot be reached${why}. Check its address and your network; Weir keeps trying.`,
  };
};

const connectionLost = (host: string): AppError => ({
  type: "server_unreachable",
  message: `The connection to the server ${host} was lost. Weir connects again by itself.`,
});

const sentAway = (host: string): AppError => ({
  type: "server_refused",
  message: `The server ${host} ended the connection. If Weir runs twice with this profile, close one of them.`,
});
