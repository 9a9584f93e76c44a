import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { Duplex } from "node:stream";
import { WebSocketServer } from "ws";
import { assert } from "#shared/base/assert.ts";
import { toBase64Url } from "#shared/base/bytes.ts";
import type { Log, Random } from "#shared/base/env.ts";
import { IPC_MESSAGE_BYTES_MAX, IPC_SOCKETS_MAX, PATH_LENGTH_MAX, UPLOADS_ACTIVE_MAX } from "#shared/base/limits.ts";
import { type AppError, fail, type Result } from "#shared/base/result.ts";
import type { EventSource } from "../../ipc/handlers.ts";
import { describeThrown, type IpcServer } from "../../ipc/server.ts";
import { contentSecurityPolicy, securityHeaders } from "../policy/csp.ts";
import { readStatic } from "../policy/static-files.ts";
import { Guard } from "./guard.ts";
import { serveIpcSocket } from "./ipc-socket.ts";
import { makeUploadFolder, receiveIntoFolder, receiveUpload } from "./upload.ts";

/**
 * The window's way in when there is no window: HTTP and WebSocket on 127.0.0.1.
 *
 *   GET  /...                   the built renderer; no secret in it, so no token
 *   GET  /ipc?token=T           WebSocket; see frames.ts
 *   POST /upload?name=NAME      Authorization: Bearer T; body = the file -> 201 {"path": "..."}
 *   POST /upload?folder=NAME    the same without a body: an empty folder -> 201 {"path": P}
 *   POST /upload?into=P&name=N  body = the file with the path N in that folder
 *   anything else               404, 405; a foreign Host or Origin 403; a wrong token 401
 */
export interface Bridge {
  readonly url: string;
  readonly token: string;
  /** Closes every connection and stops listening. */
  stop(): Promise<void>;
}

export interface BridgeOptions {
  readonly port: number;
  readonly rendererDir: string;
  readonly uploadsDir: string;
  readonly server: IpcServer;
  readonly events: EventSource;
  readonly random: Random;
  readonly log: Log;
}

/** @throws the system's error when the port is taken. */
export const startBridge = async (options: BridgeOptions): Promise<Bridge> => {
  const token = toBase64Url(options.random.bytes(32));
  const http = createServer({ maxHeaderSize: 16 * 1024, requestTimeout: 0, headersTimeout: 10_000 });
  const port = await listen(http, options.port);
  const routes = new Routes(options, new Guard(token, port), port);
  http.on("request", (request, response) => void routes.request(request, response));
  http.on("upgrade", (request, socket, head) => routes.upgrade(request, socket, head));
  http.on("clientError", (_error, socket) => socket.destroy());
  return {
    url: `http://127.0.0.1:${port}/`,
    token,
    async stop() {
      routes.stop();
      const closed = new Promise<void>((resolve) => http.close(() => resolve()));
      http.closeAllConnections();
      await closed;
    },
  };
};

const listen = (http: Server, port: number): Promise<number> =>
  new Promise((resolve, reject) => {
    http.once("error", reject);
    http.listen({ host: "127.0.0.1", port }, () => {
      http.off("error", reject);
      resolve(portOf(http.address()));
    });
  });

const portOf = (address: AddressInfo | string | null): number => {
  assert(address !== null && typeof address !== "string", "a TCP server has a port");
  return address.port;
};

class Routes {
  readonly #options: BridgeOptions;
  readonly #guard: Guard;
  readonly #headers: Readonly<Record<string, string>>;
  readonly #sockets = new WebSocketServer({
    noServer: true,
    maxPayload: IPC_MESSAGE_BYTES_MAX,
    perMessageDeflate: false,
    clientTracking: true,
  });
  #uploads = 0;

  constructor(options: BridgeOptions, guard: Guard, port: number) {
    this.#options = options;
    this.#guard = guard;
    this.#headers = securityHeaders(contentSecurityPolicy([`ws://127.0.0.1:${port}`, `ws://localhost:${port}`]));
  }

  async request(request: IncomingMessage, response: ServerResponse): Promise<void> {
    for (const [name, value] of Object.entries(this.#headers)) response.setHeader(name, value);
    const url = targetOf(request);
    if (!this.#guard.hostAllowed(request.headers) || !this.#guard.originAllowed(request.headers)) {
      return sendError(response, 403, foreign);
    }
    if (url === null) return sendError(response, 400, { type: "bad_request", message: "The address is malformed." });
    try {
      if (url.pathname === "/upload") return await this.#upload(request, response, url);
      if (request.method !== "GET" && request.method !== "HEAD") {
        response.setHeader("allow", "GET, HEAD");
        return sendError(response, 405, { type: "bad_method", message: "Only GET and HEAD are answered here." });
      }
      await this.#static(request, response, url);
    } catch (thrown) {
      this.#options.log.error("a request failed unexpectedly", describeThrown(thrown));
      if (response.headersSent) response.destroy();
      else sendError(response, 500, { type: "internal", message: "Something went wrong inside Weir." });
    }
  }

  async #static(request: IncomingMessage, response: ServerResponse, url: URL): Promise<void> {
    const file = await readStatic(this.#options.rendererDir, url.pathname);
    if (!file.ok) {
      response.setHeader("cache-control", "no-store");
      response.writeHead(file.error.type === "not_built" ? 503 : 404, { "content-type": "text/plain; charset=utf-8" });
      response.end(request.method === "HEAD" ? undefined : `${file.error.message}\n`);
      return;
    }
    const { body, contentType, cacheControl } = file.value;
    response.writeHead(200, {
      "content-type": contentType,
      "content-length": body.length,
      "cache-control": cacheControl,
    });
    response.end(request.method === "HEAD" ? undefined : body);
  }

  async #upload(request: IncomingMessage, response: ServerResponse, url: URL): Promise<void> {
    const refuse = (status: number, error: AppError): void => {
      // The rest of the body is not read: the connection ends with the answer.
      response.setHeader("connection", "close");
      sendError(response, status, error);
    };
    if (request.method !== "POST") return refuse(405, { type: "bad_method", message: "Upload with POST." });
    if (!this.#guard.bearerAllowed(request.headers)) return refuse(401, wrongToken);
    const folder = url.searchParams.get("folder");
    const into = url.searchParams.get("into");
    const name = folder ?? url.searchParams.get("name") ?? "";
    if (name === "" || name.length > PATH_LENGTH_MAX) {
      return refuse(400, { type: "bad_request", message: "Give the file's name as ?name=." });
    }
    if (this.#uploads >= UPLOADS_ACTIVE_MAX) {
      return refuse(503, { type: "busy", message: "Too many uploads at once. Try again when one has finished." });
    }
    const { uploadsDir: directory, random, log } = this.#options;
    this.#uploads++;
    let result: Result<{ path: string }>;
    try {
      const sizeBytes = lengthOf(request);
      if (folder !== null) result = await makeUploadFolder({ directory, name }, { random, log });
      else if (into !== null) result = await receiveIntoFolder(request, { directory, into, name, sizeBytes }, { log });
      else result = await receiveUpload(request, { directory, name, sizeBytes }, { random, log });
    } finally {
      this.#uploads--;
    }
    if (result.ok) sendJson(response, 201, result.value);
    else refuse(result.error.type === "disk_full" ? 507 : 500, result.error);
  }

  upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    socket.on("error", () => socket.destroy());
    const refusal = this.#upgradeRefusal(request);
    if (refusal !== null) {
      refuseUpgrade(socket, refusal.status, refusal.error);
      return;
    }
    const { server, events, log } = this.#options;
    this.#sockets.handleUpgrade(request, socket, head, (opened) => serveIpcSocket(opened, server, events, log));
  }

  #upgradeRefusal(request: IncomingMessage): { status: string; error: AppError } | null {
    const { headers } = request;
    if (!this.#guard.hostAllowed(headers) || !this.#guard.originAllowed(headers)) {
      return { status: "403 Forbidden", error: foreign };
    }
    const url = targetOf(request);
    if (url?.pathname !== "/ipc") return { status: "404 Not Found", error: nothingHere };
    if (!this.#guard.tokenAllowed(url.searchParams.get("token"))) {
      return { status: "401 Unauthorized", error: wrongToken };
    }
    if (this.#sockets.clients.size >= IPC_SOCKETS_MAX) return { status: "503 Service Unavailable", error: tooMany };
    return null;
  }

  /** 1001 tells a window that the program ended, not that it did something wrong. */
  stop(): void {
    for (const socket of this.#sockets.clients) {
      socket.close(1001, "Weir ends");
      socket.terminate();
    }
    this.#sockets.close();
  }
}

const foreign = { type: "forbidden", message: "This address answers only Weir's own page on this machine." };
const wrongToken = {
  type: "wrong_token",
  message: "The token is missing or wrong. Use the address that Weir printed.",
};
const nothingHere = { type: "not_found", message: "There is nothing here." };
const tooMany = { type: "busy", message: "Too many windows are open on this profile. Close one." };

/** Null when the request line is not a plain path (absolute-form and authority-form included). */
const targetOf = (request: IncomingMessage): URL | null => {
  const target = request.url ?? "";
  // Two slashes would make the URL parser read a host.
  return target.startsWith("/") && !/^\/[/\\]/.test(target) ? URL.parse(target, "http://127.0.0.1") : null;
};

const lengthOf = (request: IncomingMessage): number | null => {
  const length = request.headers["content-length"];
  return length === undefined ? null : Number(length);
};

const sendJson = (response: ServerResponse, status: number, value: unknown): void => {
  const body = JSON.stringify(value);
  response.writeHead(status, {
    "content-type": "application/json; charset=utf-8",
    "content-length": Buffer.byteLength(body),
    "cache-control": "no-store",
  });
  response.end(body);
};

const sendError = (response: ServerResponse, status: number, error: AppError): void =>
  sendJson(response, status, fail(error.type, error.message));

const refuseUpgrade = (socket: Duplex, status: string, error: AppError): void => {
  const body = JSON.stringify(fail(error.type, error.message));
  socket.end(
    `HTTP/1.1 ${status}\r\nconnection: close\r\ncontent-type: application/json\r\n` +
      `content-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
  );
};
