import { assertNever } from "#shared/base/assert.ts";
import type { Step } from "#shared/base/machine.ts";
import type { Receipt, ReceiptKind } from "#shared/shares/receipt.ts";

/**
 * One profile's receipts of one file, and how they are exchanged with the server. Receipts only ever come to be, each
 * proves itself, and there is one for each kind and person: so sets of them may be united, unlike share lists.
 *
 * | state     | event                | what happens                                                             |
 * |-----------|----------------------|--------------------------------------------------------------------------|
 * | any       | `made`, `arrived`    | kept; one of ours that the server lacks is sent when there is a connection |
 * | any       | `connected`          | what the server lacks is sent, oldest first; everything new is fetched     |
 * | any       | `wanted`             | fetched, if connected                                                      |
 * | fetching  | `fetched`            | kept, the next page is asked for until there is none; then `current`       |
 * | sending   | `sent`, `refused`    | the next one; a refusal that a repeat will not change ends it              |
 * | any       | `disconnected`       | nothing is current any more                                                |
 */
export interface ReceiptBook {
  /** By {@link receiptKey}. */
  readonly known: ReadonlyMap<string, Receipt>;
  /** Ours that the server has not confirmed, oldest first. */
  readonly unsent: readonly string[];
  readonly connected: boolean;
  /** How many of the server's receipts were read over this connection, in its order. */
  readonly read: number;
  readonly fetching: "no" | "running" | "again";
  readonly sending: boolean;
  /** All that the server had was fetched over this connection, and nobody has spoken of more since. */
  readonly current: boolean;
}

export type ReceiptEvent =
  /** `unsent`: keys of our own receipts that this server has not confirmed, oldest first. */
  | { readonly type: "connected"; readonly unsent: readonly string[] }
  | { readonly type: "disconnected" }
  | { readonly type: "made"; readonly receipt: Receipt }
  /** Of a contact, or of the server; checked already. */
  | { readonly type: "arrived"; readonly receipt: Receipt }
  | { readonly type: "wanted" }
  /** `read`: how far in the server's order this page goes. `receipts` were checked; what did not hold was left out. */
  | { readonly type: "fetched"; readonly receipts: readonly Receipt[]; readonly read: number; readonly total: number }
  | { readonly type: "fetchFailed" }
  | { readonly type: "sent"; readonly key: string }
  /** `final`: a repeat will be refused, too. */
  | { readonly type: "sendFailed"; readonly key: string; readonly final: boolean };

export type ReceiptEffect =
  | { readonly type: "fetch"; readonly after: number }
  | { readonly type: "send"; readonly receipt: Receipt }
  | { readonly type: "store"; readonly receipts: readonly Receipt[] }
  | { readonly type: "settled"; readonly receipt: Receipt }
  /** More is known, or whether it is current has changed. */
  | { readonly type: "changed" };

export const receiptKey = ({ kind, subject }: { kind: ReceiptKind; subject: string }): string => `${kind} ${subject}`;

export const openBook = (known: readonly Receipt[]): ReceiptBook => ({
  known: new Map(known.map((receipt) => [receiptKey(receipt), receipt])),
  unsent: [],
  connected: false,
  read: 0,
  fetching: "no",
  sending: false,
  current: false,
});

type Reaction = readonly [ReceiptBook, readonly ReceiptEffect[]];

export const receiptStep: Step<ReceiptBook, ReceiptEvent, ReceiptEffect> = (state, event) => {
  const [next, effects] = react(state, event);
  return sendNext(next, effects);
};

const react = (state: ReceiptBook, event: ReceiptEvent): Reaction => {
  switch (event.type) {
    case "connected":
      return fetchNow(
        {
          ...{ known: state.known, unsent: event.unsent, connected: true, sending: false },
          ...{ fetching: "no", read: 0, current: false },
        },
        [],
      );
    case "disconnected":
      return [
        { ...state, connected: false, sending: false, fetching: "no", current: false },
        state.current ? [{ type: "changed" }] : [],
      ];
    case "made": {
      const key = receiptKey(event.receipt);
      if (state.known.has(key)) return [state, []];
      const [kept, effects] = keep(state, [event.receipt]);
      // Without a connection the next one brings it.
      return [state.connected ? { ...kept, unsent: [...kept.unsent, key] } : kept, effects];
    }
    case "arrived":
      return keep(state, [event.receipt]);
    case "wanted":
      return state.connected ? fetchNow(state, []) : [state, []];
    case "fetched":
      return fetched(state, event);
    case "fetchFailed":
      if (state.fetching === "no") return [state, []];
      return state.fetching === "again"
        ? fetchNow({ ...state, fetching: "no" }, [])
        : [{ ...state, fetching: "no" }, []];
    case "sent":
      return settled(state, event.key);
    case "sendFailed":
      if (event.final) return settled(state, event.key);
      // It waits for the next connection, as if it were still on its way.
      return [state, []];
    default:
      return assertNever(event, "receipt event");
  }
};

const fetchNow = (state: ReceiptBook, effects: readonly ReceiptEffect[]): Reaction => {
  if (state.fetching !== "no") return [{ ...state, fetching: "again" }, effects];
  return [{ ...state, fetching: "running" }, [...effects, { type: "fetch", after: state.read }]];
};

/** The first receipt of a kind and person stays: whoever signs twice says nothing new. */
const keep = (state: ReceiptBook, receipts: readonly Receipt[]): Reaction => {
  const known = new Map(state.known);
  const fresh = receipts.filter((receipt) => {
    const key = receiptKey(receipt);
    if (known.has(key)) return false;
    known.set(key, receipt);
    return true;
  });
  if (fresh.length === 0) return [state, []];
  return [{ ...state, known }, [{ type: "store", receipts: fresh }, { type: "changed" }]];
};

const fetched = (state: ReceiptBook, event: Extract<ReceiptEvent, { type: "fetched" }>): Reaction => {
  if (!state.connected || state.fetching === "no") return [state, []];
  const [kept, effects] = keep({ ...state, fetching: "no", read: event.read }, event.receipts);
  // A page that brings nothing ends it, whatever the server says that it has.
  const isMore = event.read < event.total && event.read > state.read;
  if (isMore || state.fetching === "again") return fetchNow(kept, effects);
  return kept.current ? [kept, effects] : [{ ...kept, current: true }, [...effects, { type: "changed" }]];
};

const settled = (state: ReceiptBook, key: string): Reaction => {
  const receipt = state.known.get(key);
  if (receipt === undefined || !state.unsent.includes(key)) return [state, []];
  const next = { ...state, sending: false, unsent: state.unsent.filter((other) => other !== key) };
  return [next, [{ type: "settled", receipt }]];
};

const sendNext = (state: ReceiptBook, effects: readonly ReceiptEffect[]): Reaction => {
  const [key] = state.unsent;
  const receipt = key === undefined ? undefined : state.known.get(key);
  if (!state.connected || state.sending || receipt === undefined) return [state, effects];
  return [{ ...state, sending: true }, [...effects, { type: "send", receipt }]];
};
