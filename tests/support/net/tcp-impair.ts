import { once } from "node:events";
import { connect, createServer, type Server, type Socket } from "node:net";
import { seededNumbers } from "../seeded.ts";
import { CLEAR, type Impairment, Schedule } from "./impairment.ts";

const SEGMENT_BYTES = 1448;
/** Initial window and first threshold of a connection (RFC 6928; no threshold is known at first). */
const WINDOW_SEGMENTS_FIRST = 10;
const WINDOW_SEGMENTS_MAX = 4096;
/** Bytes of one direction on their way through the relay; beyond it the sender has to wait. */
const BUFFER_BYTES_MAX = 8 * 1024 * 1024;

/**
 * The TCP counterpart of the UDP relay, for comparisons: programs connect to `port` and reach `target`. The relay ends both
 * TCP connections, so the kernel sees no loss and no delay; instead every direction is paced as Reno (RFC 5681) would be on
 * the impaired network: a window of segments a round trip, doubled until the first loss, halved by each loss (at most once
 * a round trip), else one segment larger; what comes after a lost segment waits one round trip for its repetition.
 * Reordering and duplicates do nothing to a byte stream and are ignored.
 */
export class TcpRelay implements AsyncDisposable {
  readonly port: number;
  readonly counts = { segments: 0, lost: 0 };
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #schedule = new Schedule();
  #impairment: Impairment;

  private constructor(server: Server, port: number, impairment: Impairment) {
    this.#server = server;
    this.port = port;
    this.#impairment = impairment;
  }

  static async open(options: {
    seed: number;
    target: { host: string; port: number };
    impairment?: Partial<Impairment>;
  }): Promise<TcpRelay> {
    const server = createServer({ allowHalfOpen: true, noDelay: true });
    await once(server.listen(0, "127.0.0.1"), "listening");
    const address = server.address();
    if (address === null || typeof address === "string") throw new Error("a TCP server has a port");
    const relay = new TcpRelay(server, address.port, { ...CLEAR, ...options.impairment });
    let connections = 0;
    server.on("connection", (near) => {
      const far = connect({ ...options.target, allowHalfOpen: true, noDelay: true });
      const seed = options.seed + 2 * connections++;
      relay.#pipe(near, far, seed);
      relay.#pipe(far, near, seed + 1);
    });
    return relay;
  }

  /** From the next segment on. */
  impair(change: Partial<Impairment>): void {
    this.#impairment = { ...this.#impairment, ...change };
  }

  #pipe(from: Socket, to: Socket, seed: number): void {
    this.#sockets.add(from);
    const pace = new RenoPace(seed);
    let underWay = 0;
    const later = (atMs: number, bytes: number, run: () => void): void => {
      underWay += bytes;
      if (underWay >= BUFFER_BYTES_MAX) from.pause();
      this.#schedule.at(atMs, () => {
        underWay -= bytes;
        if (underWay < BUFFER_BYTES_MAX) from.resume();
        if (!to.destroyed) run();
      });
    };
    from.on("data", (data: Buffer) => {
      for (let at = 0; at < data.length; at += SEGMENT_BYTES) {
        const segment = data.subarray(at, at + SEGMENT_BYTES);
        const { arrivesAtMs, lost } = pace.send(segment.length, performance.now(), this.#impairment);
        this.counts.segments += 1;
        if (lost) this.counts.lost += 1;
        later(arrivesAtMs, segment.length, () => void to.write(segment));
      }
    });
    from.on("end", () => later(pace.lastArrivalMs, 0, () => void to.end()));
    from.on("error", () => to.destroy());
    from.on("close", () => this.#sockets.delete(from));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#schedule.clear();
    for (const socket of this.#sockets) socket.destroy();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }
}

/** When the segments of one direction arrive. Pure but for its seed; times on the clock of `nowMs`. */
export class RenoPace {
  readonly #number: () => number;
  #window = WINDOW_SEGMENTS_FIRST;
  #threshold = WINDOW_SEGMENTS_MAX;
  /** The sender's window is spread over the round trip: the next segment leaves then. */
  #freeAtMs = 0;
  #recoversAtMs = 0;
  lastArrivalMs = 0;

  constructor(seed: number) {
    this.#number = seededNumbers(seed);
  }

  send(bytes: number, nowMs: number, impairment: Impairment): { arrivesAtMs: number; lost: boolean } {
    const [chance, jitter] = [this.#number(), this.#number()];
    const roundTripMs = 2 * impairment.delayMs + impairment.jitterMs;
    const lost = chance < impairment.lossRate;
    const leavesAtMs = Math.max(nowMs, this.#freeAtMs);
    const wireMs = impairment.bytesPerSecond === null ? 0 : (bytes / impairment.bytesPerSecond) * 1000;
    this.#freeAtMs = leavesAtMs + Math.max(wireMs, roundTripMs / this.#window);
    this.#adjust(lost, leavesAtMs, roundTripMs);
    const oneWayMs = impairment.delayMs + jitter * impairment.jitterMs + (lost ? roundTripMs : 0);
    // In order: nothing is handed on before what was sent earlier.
    this.lastArrivalMs = Math.max(this.lastArrivalMs, leavesAtMs + oneWayMs);
    return { arrivesAtMs: this.lastArrivalMs, lost };
  }

  #adjust(lost: boolean, atMs: number, roundTripMs: number): void {
    if (lost && atMs >= this.#recoversAtMs) {
      this.#threshold = Math.max(2, this.#window / 2);
      this.#window = this.#threshold;
      this.#recoversAtMs = atMs + roundTripMs;
    } else if (!lost) {
      const step = this.#window < this.#threshold ? 1 : 1 / this.#window;
      this.#window = Math.min(WINDOW_SEGMENTS_MAX, this.#window + step);
    }
  }
}
