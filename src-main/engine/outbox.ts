/** Gathers messages, so that many travel as one. What is urgent leaves with this step, everything else with this turn. */
export class Outbox<Message> {
  readonly #post: (messages: readonly Message[]) => void;
  #waiting: Message[] = [];

  constructor(post: (messages: readonly Message[]) => void) {
    this.#post = post;
  }

  push(message: Message, isUrgent: boolean): void {
    this.#waiting.push(message);
    if (isUrgent) queueMicrotask(() => this.flush());
    else if (this.#waiting.length === 1) setImmediate(() => this.flush());
  }

  flush(): void {
    if (this.#waiting.length === 0) return;
    const messages = this.#waiting;
    this.#waiting = [];
    this.#post(messages);
  }

  clear(): void {
    this.#waiting = [];
  }
}
