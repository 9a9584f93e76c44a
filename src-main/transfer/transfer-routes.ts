import type { Generation, UserId } from "#shared/base/ids.ts";
import type { AppMessage } from "../links/links.ts";
import type { ChunkWorker } from "./chunk-worker-client.ts";
import type { Download } from "./download.ts";
import { PieceMap } from "./piece-map.ts";
import type { SteadyLinks } from "./steady-links.ts";

interface Route {
  readonly download: Download;
  readonly session: number;
}

interface OpenRoute extends Route {
  readonly tag: number;
  /** The link that it was opened over, which may have replaced the one that it is known by. */
  readonly over: Generation;
}

type Answer = Extract<AppMessage, { type: "accept" | "have" | "refuse" | "unavailable" | "stopped" }>;
type Received = Parameters<Parameters<SteadyLinks["onBulk"]>[0]>[0];

const TAG_MAX = 0xffffffff;

/** Which session of which download a tag on a link belongs to. */
export class TransferRoutes {
  readonly #links: Pick<SteadyLinks, "release" | "currentOf">;
  readonly #worker: Pick<ChunkWorker, "drop">;
  readonly #routes = new Map<string, OpenRoute>();
  #nextTag = 1;
  #strayFrames = 0;

  constructor(links: Pick<SteadyLinks, "release" | "currentOf">, worker: Pick<ChunkWorker, "drop">) {
    this.#links = links;
    this.#worker = worker;
  }

  /** Frames of sessions that were over and forgotten when they came. */
  get strayFrames(): number {
    return this.#strayFrames;
  }

  /** Tags are counted over all downloads, so that none is used twice on a link. */
  open(route: Route, peer: UserId, generation: Generation): number {
    const tag = this.#nextTag;
    this.#nextTag = tag === TAG_MAX ? 1 : tag + 1;
    const over = this.#links.currentOf(peer, generation);
    this.#routes.set(routeKey(peer, generation, tag), { ...route, tag, over });
    return tag;
  }

  close(peer: UserId, generation: Generation, tag: number): void {
    this.#routes.delete(routeKey(peer, generation, tag));
  }

  /**
   * The link is gone, and with it everything that was open over it. `next` has taken its place: the sessions that were
   * opened over that one, by download, go on under its generation.
   */
  closeLink(peer: UserId, generation: Generation, next: Generation | null): ReadonlyMap<Download, readonly number[]> {
    const prefix = `${peer} ${generation} `;
    const goOn = new Map<Download, number[]>();
    for (const [key, route] of [...this.#routes]) {
      if (!key.startsWith(prefix)) continue;
      this.#routes.delete(key);
      if (route.over !== next) continue;
      this.#routes.set(routeKey(peer, next, route.tag), route);
      goOn.set(route.download, [...(goOn.get(route.download) ?? []), route.session]);
    }
    return goOn;
  }

  onAnswer(peer: UserId, generation: Generation, message: Answer): void {
    const route = this.#routes.get(routeKey(peer, generation, message.tag));
    if (route !== undefined) answerOf(route, message);
  }

  onBulk({ peer, generation, releaseTo, frame, bytes }: Received): void {
    const route = this.#routes.get(routeKey(peer, generation, frame.tag));
    if (route === undefined) {
      this.#strayFrames += 1;
      this.#worker.drop([frame.payload]);
      this.#links.release(peer, releaseTo, bytes);
      return;
    }
    const held = { peer, releaseTo, payload: frame.payload, frameBytes: bytes };
    route.download.onFrame(route.session, frame.kind, frame.index, held);
  }
}

const routeKey = (peer: UserId, generation: Generation, tag: number): string => `${peer} ${generation} ${tag}`;

const answerOf = ({ download, session }: Route, message: Answer): void => {
  switch (message.type) {
    case "accept":
      download.dispatch({ type: "accepted", session });
      return;
    case "have": {
      const { chunkCount } = download.spec;
      const { chunks, leaves = true } = message;
      if (Array.isArray(chunks)) {
        download.dispatch({ type: "haveMore", session, runs: chunks, leaves });
        return;
      }
      const available = chunks === "all" ? null : PieceMap.fromBytes(chunkCount, chunks);
      download.dispatch({ type: "have", session, available, leaves });
      return;
    }
    case "refuse":
      download.dispatch({ type: "refused", session, reason: message.reason });
      return;
    case "unavailable":
      download.dispatch({ type: "unavailable", session, indices: message.indices });
      return;
    case "stopped":
      download.dispatch({ type: "stopped", session, framesSent: message.framesSent });
      return;
  }
};
