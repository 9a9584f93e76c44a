/** A Chrome DevTools Protocol connection: one WebSocket, flat sessions. Results are read by the caller, who knows them. */
type Params = Record<string, unknown>;
export type CdpListener = (method: string, params: CdpEvent) => void;
// biome-ignore lint/suspicious/noExplicitAny: the protocol's own types are larger than this whole stand-in
export type CdpEvent = any;

interface Pending {
  readonly method: string;
  readonly resolve: (result: CdpEvent) => void;
  readonly reject: (error: Error) => void;
}

export class CdpConnection {
  readonly #socket: WebSocket;
  readonly #pendingById = new Map<number, Pending>();
  readonly #listenerBySession = new Map<string, CdpListener>();
  #lastId = 0;

  private constructor(socket: WebSocket, onBrowserEvent: CdpListener) {
    this.#socket = socket;
    socket.onmessage = ({ data }) => {
      const message = JSON.parse(String(data));
      const pending = this.#pendingById.get(message.id);
      if (pending === undefined) {
        const listener =
          message.sessionId === undefined ? onBrowserEvent : this.#listenerBySession.get(message.sessionId);
        listener?.(message.method, message.params);
        return;
      }
      this.#pendingById.delete(message.id);
      if (message.error) pending.reject(new Error(`${pending.method}: ${message.error.message}`));
      else pending.resolve(message.result);
    };
    socket.onclose = () => {
      for (const { method, reject } of this.#pendingById.values()) reject(new Error(`${method}: the browser is gone`));
      this.#pendingById.clear();
    };
  }

  static open(url: string, onBrowserEvent: CdpListener): Promise<CdpConnection> {
    return new Promise((resolve, reject) => {
      const socket = new WebSocket(url);
      socket.onopen = () => resolve(new CdpConnection(socket, onBrowserEvent));
      socket.onerror = () => reject(new Error("the browser's debugging port does not answer"));
    });
  }

  send(method: string, params: Params = {}, sessionId?: string): Promise<CdpEvent> {
    const id = ++this.#lastId;
    return new Promise((resolve, reject) => {
      if (this.#socket.readyState !== WebSocket.OPEN) return reject(new Error(`${method}: the browser is gone`));
      this.#pendingById.set(id, { method, resolve, reject });
      this.#socket.send(JSON.stringify({ id, method, params, sessionId }));
    });
  }

  listen(sessionId: string, listener: CdpListener): void {
    this.#listenerBySession.set(sessionId, listener);
  }

  forget(sessionId: string): void {
    this.#listenerBySession.delete(sessionId);
  }
}
