import type { Disposable } from "#shared/base/disposable.ts";
import { Emitter } from "#shared/base/emitter.ts";
import type { Clock, Log } from "#shared/base/env.ts";
import { PROGRESS_INTERVAL_MS, PUBLISHER_PENDING_MAX } from "#shared/base/limits.ts";
import type { TransferView } from "#shared/ipc/views.ts";
import type { EventSource, PublishedEvent } from "./handlers.ts";
import { describeThrown } from "./server.ts";

/**
 * Thins the stream of snapshots out before it reaches a renderer. A snapshot replaces the earlier one of the same event
 * and entity, so a renderer that subscribes late, or loses one, needs no replay: it asks for the list and goes on.
 *
 * | event             | when it is delivered |
 * |-------------------|----------------------|
 * | transfer.changed  | first of a transfer, every change of phase: at once; else the newest, 10 times a second at most |
 * | notice            | every one, in order, with the next tick |
 * | all others        | the newest of each entity, with the next tick |
 *
 * Memory is bounded by {@link PUBLISHER_PENDING_MAX} waiting snapshots (then they are delivered at once) and one entry
 * for each transfer that moved within the last tenth of a second.
 */
export interface Publisher extends Disposable {
  readonly events: EventSource;
}

interface Throttle {
  readonly sent: TransferView;
  waiting: TransferView | null;
  timer: Disposable;
}

export const createPublisher = (source: EventSource, clock: Clock, log: Log): Publisher => {
  const out = new Emitter<PublishedEvent>((error) =>
    log.error("a listener of snapshots failed", describeThrown(error)),
  );
  const waitingByKey = new Map<string, PublishedEvent>();
  const throttleByFile = new Map<string, Throttle>();
  let tick: Disposable | null = null;
  let notices = 0;

  const flush = (): void => {
    tick?.dispose();
    tick = null;
    const waiting = [...waitingByKey.values()];
    waitingByKey.clear();
    for (const event of waiting) out.emit(event);
  };

  const sendTransfer = (view: TransferView): void => {
    throttleByFile.get(view.fileId)?.timer.dispose();
    const timer = clock.setTimer(PROGRESS_INTERVAL_MS, () => {
      const entry = throttleByFile.get(view.fileId);
      throttleByFile.delete(view.fileId);
      if (entry?.waiting) sendTransfer(entry.waiting);
    });
    throttleByFile.set(view.fileId, { sent: view, waiting: null, timer });
    out.emit({ event: "transfer.changed", payload: view });
  };

  const onTransfer = (view: TransferView): void => {
    const entry = throttleByFile.get(view.fileId);
    if (entry === undefined || entry.sent.phase !== view.phase) sendTransfer(view);
    else entry.waiting = view;
  };

  const subscription = source((published) => {
    if (published.event === "transfer.changed") return onTransfer(published.payload);
    waitingByKey.set(published.event === "notice" ? `notice ${notices++}` : keyOf(published), published);
    if (waitingByKey.size >= PUBLISHER_PENDING_MAX) flush();
    else tick ??= clock.setTimer(0, flush);
  });

  return {
    events: out.event,
    dispose() {
      subscription.dispose();
      tick?.dispose();
      for (const { timer } of throttleByFile.values()) timer.dispose();
      throttleByFile.clear();
      waitingByKey.clear();
      out.dispose();
    },
  };
};

const keyOf = (published: Exclude<PublishedEvent, { event: "transfer.changed" | "notice" }>): string => {
  switch (published.event) {
    case "contact.changed":
      return `contact ${published.payload.userId}`;
    case "chat.changed":
      return `chat ${published.payload.chatId}`;
    case "message.changed":
      return `message ${published.payload.messageId}`;
    case "file.changed":
      return `file ${published.payload.fileId}`;
    case "link.changed":
      return `link ${published.payload.peerId}`;
    case "server.changed":
      return "server";
    case "share.progress":
      return `share ${published.payload.fileId}`;
    case "invite.opened":
      return "invite";
  }
};
