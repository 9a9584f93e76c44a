/** What happened to envelopes, in the order in which those who did it saw it. */
export type MailboxEvent =
  /** The sender has the server's word for it. `number` counts what this sender has sent. */
  | { readonly type: "stored"; readonly id: string; readonly sender: string; readonly number: number }
  | { readonly type: "pushed"; readonly id: string; readonly connection: number }
  /** The recipient has the server's word that its acknowledgement was taken. */
  | { readonly type: "acknowledged"; readonly id: string };

export interface MailboxVerdict {
  /** Stored and never pushed. */
  readonly lost: readonly string[];
  /** Pushed after the recipient was told that it is gone, or twice over one connection. */
  readonly again: readonly string[];
  /** Pushed for the first time after a later one of the same sender. */
  readonly early: readonly string[];
}

/** Exactly once, in order: over any kills, an envelope comes until its acknowledgement is taken, and then never. */
export const judgeMailbox = (events: readonly MailboxEvent[]): MailboxVerdict => {
  const sent = new Map<string, { sender: string; number: number }>();
  for (const event of events) if (event.type === "stored") sent.set(event.id, event);
  const pushed = new Set<string>();
  const gone = new Set<string>();
  const onConnection = new Set<string>();
  const highest = new Map<string, number>();
  const again: string[] = [];
  const early: string[] = [];
  for (const event of events) {
    if (event.type === "acknowledged") gone.add(event.id);
    if (event.type !== "pushed") continue;
    const { id, connection } = event;
    if (gone.has(id) || onConnection.has(`${connection}/${id}`)) again.push(id);
    onConnection.add(`${connection}/${id}`);
    const from = sent.get(id);
    if (pushed.has(id) || from === undefined) continue;
    pushed.add(id);
    const before = highest.get(from.sender) ?? -1;
    if (from.number < before) early.push(id);
    highest.set(from.sender, Math.max(before, from.number));
  }
  return { lost: [...sent.keys()].filter((id) => !pushed.has(id)), again, early };
};
