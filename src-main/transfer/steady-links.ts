import { type Disposable, DisposableStore } from "#shared/base/disposable.ts";
import { Emitter, type Event } from "#shared/base/emitter.ts";
import type { Generation, UserId } from "#shared/base/ids.ts";
import type { LinkView } from "#shared/ipc/views.ts";
import type { BulkFrame } from "#shared/wire/frame.ts";
import type { AppMessage, Links } from "../links/links.ts";

/**
 * Links as transfers see them: a link that is replaced in order is still the same one. Its generation stays that of the
 * first of them, so what is open over it stays open, and nothing that was asked for is asked for twice.
 *
 * A peer whose process died and came back looks the same at first: its new link replaces one that is already dead. When that
 * one is given up, what was open before begins anew, but not what either side opened over the new link.
 */
export interface SteadyLinks
  extends Pick<
      Links,
      "onChanged" | "onDrained" | "list" | "view" | "connect" | "send" | "takesHeldFrames" | "sendBulk"
    >,
    Disposable {
  /** `over` is the generation that it really came over. */
  readonly onMessage: Event<{ peer: UserId; generation: Generation; over: Generation; message: AppMessage }>;
  /** `releaseTo` is the generation that the frame really came over: credit goes back there. */
  readonly onBulk: Event<{
    peer: UserId;
    generation: Generation;
    releaseTo: Generation;
    frame: BulkFrame;
    bytes: number;
  }>;
  release(peer: UserId, releaseTo: Generation, bytes: number): void;
  /** The generation of the link that takes what is sent over `generation` now. */
  currentOf(peer: UserId, generation: Generation): Generation;
}

type Beneath = Pick<
  Links,
  | "onChanged"
  | "onMessage"
  | "onBulk"
  | "onDrained"
  | "onReplaced"
  | "onLeft"
  | "list"
  | "view"
  | "connect"
  | "send"
  | "takesHeldFrames"
  | "sendBulk"
  | "release"
>;

/** What one peer's links have in common. */
interface Line {
  /** The generation that is told. */
  readonly told: Generation;
  readonly current: Generation;
  /** Replaced ones that still deliver. */
  readonly leaving: ReadonlySet<Generation>;
  /** Frames that were read for it may be held in the engine. */
  readonly held: boolean;
}

export const createSteadyLinks = (links: Beneath, onListenerError: (error: unknown) => void): SteadyLinks =>
  new Steady(links, onListenerError);

class Steady implements SteadyLinks {
  readonly #links: Beneath;
  readonly #lines = new Map<UserId, Line>();
  readonly #owned = new DisposableStore();
  readonly #changed: Emitter<LinkView>;
  readonly #message: Emitter<Parameters<Parameters<SteadyLinks["onMessage"]>[0]>[0]>;
  readonly #bulk: Emitter<Parameters<Parameters<SteadyLinks["onBulk"]>[0]>[0]>;
  readonly #drained: Emitter<{ peer: UserId; generation: Generation }>;

  constructor(links: Beneath, onListenerError: (error: unknown) => void) {
    this.#links = links;
    const emitter = <T>(): Emitter<T> => this.#owned.add(new Emitter<T>(onListenerError));
    this.#changed = emitter();
    this.#message = emitter();
    this.#bulk = emitter();
    this.#drained = emitter();
    for (const view of links.list()) this.#follow(view);
    this.#owned.add(links.onReplaced(({ peer, from, to }) => this.#replaced(peer, from, to)));
    this.#owned.add(links.onLeft(({ peer, generation, complete }) => this.#left(peer, generation, complete)));
    this.#owned.add(
      links.onChanged((view) => {
        this.#follow(view);
        this.#changed.emit(this.#told(view));
      }),
    );
    this.#owned.add(
      links.onMessage(({ peer, generation, message }) =>
        this.#message.emit({ peer, generation: this.#toldAs(peer, generation), over: generation, message }),
      ),
    );
    this.#owned.add(
      links.onBulk(({ peer, generation, frame, bytes }) =>
        this.#bulk.emit({ peer, generation: this.#toldAs(peer, generation), releaseTo: generation, frame, bytes }),
      ),
    );
    this.#owned.add(
      links.onDrained(({ peer, generation }) => {
        const line = this.#lines.get(peer);
        if (line?.current === generation) this.#drained.emit({ peer, generation: line.told });
      }),
    );
  }

  get onChanged() {
    return this.#changed.event;
  }
  get onMessage() {
    return this.#message.event;
  }
  get onBulk() {
    return this.#bulk.event;
  }
  get onDrained() {
    return this.#drained.event;
  }

  list(): LinkView[] {
    return this.#links.list().map((view) => this.#told(view));
  }

  view(peer: UserId): LinkView {
    return this.#told(this.#links.view(peer));
  }

  connect(peer: UserId): void {
    this.#links.connect(peer);
  }

  send(peer: UserId, generation: Generation, message: AppMessage): boolean {
    return this.#links.send(peer, this.currentOf(peer, generation), message);
  }

  takesHeldFrames(peer: UserId, generation: Generation): boolean {
    return this.#links.takesHeldFrames(peer, this.currentOf(peer, generation));
  }

  sendBulk(peer: UserId, generation: Generation, frame: Parameters<Links["sendBulk"]>[2]): "sent" | "full" | "closed" {
    return this.#links.sendBulk(peer, this.currentOf(peer, generation), frame);
  }

  release(peer: UserId, releaseTo: Generation, bytes: number): void {
    this.#links.release(peer, releaseTo, bytes);
  }

  currentOf(peer: UserId, told: Generation): Generation {
    const line = this.#lines.get(peer);
    return line?.told === told ? line.current : told;
  }

  #follow({ peerId, state, generation }: LinkView): void {
    const peer = peerId as UserId;
    if (state !== "connected") this.#lines.delete(peer);
    else if (this.#lines.get(peer)?.current !== generation) this.#start(peer, generation);
  }

  #start(peer: UserId, generation: Generation): void {
    const held = this.#links.takesHeldFrames(peer, generation);
    this.#lines.set(peer, { told: generation, current: generation, leaving: new Set(), held });
  }

  #replaced(peer: UserId, from: Generation, to: Generation): void {
    const line = this.#lines.get(peer);
    // Frames that are held in the engine cannot go over the server's relay: there everything begins anew.
    if (line?.current !== from || (line.held && !this.#links.takesHeldFrames(peer, to))) return;
    this.#lines.set(peer, { ...line, current: to, leaving: new Set(line.leaving).add(from) });
    this.#drained.emit({ peer, generation: line.told });
  }

  #left(peer: UserId, generation: Generation, complete: boolean): void {
    const line = this.#lines.get(peer);
    if (line === undefined || !line.leaving.has(generation)) return;
    const leaving = new Set(line.leaving);
    leaving.delete(generation);
    this.#lines.set(peer, { ...line, leaving });
    if (complete) return;
    // Nobody can say what was lost, so what is open over it begins anew.
    this.#start(peer, line.current);
    this.#changed.emit(this.#told(this.#links.view(peer)));
  }

  #told(view: LinkView): LinkView {
    const line = this.#lines.get(view.peerId as UserId);
    return line?.current === view.generation ? { ...view, generation: line.told } : view;
  }

  #toldAs(peer: UserId, generation: Generation): Generation {
    const line = this.#lines.get(peer);
    return line !== undefined && (line.current === generation || line.leaving.has(generation)) ? line.told : generation;
  }

  dispose(): void {
    this.#owned.dispose();
    this.#lines.clear();
  }
}
