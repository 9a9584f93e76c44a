import { assertNever } from "#shared/base/assert.ts";
import { EARLY_MESSAGES_MAX } from "#shared/base/limits.ts";

/**
 * Puts the contents of one sender into the sender's order. `next` is the number that is expected; null takes whatever
 * comes as the start. `early` are the numbers that came before an earlier one, ascending.
 *
 * | event            | condition            | effects                                        | next afterwards       |
 * |------------------|----------------------|------------------------------------------------|-----------------------|
 * | arrived(seq)     | seq = next, or null  | apply it, then the early ones that follow      | after the last one    |
 * | arrived(seq)     | seq < next           | apply it: late, its place was given up before  | unchanged             |
 * | arrived(seq)     | seq > next, has room | keep it                                        | unchanged             |
 * | arrived(seq)     | seq > next, no room  | report what is missing, apply up to next hole  | after the last one    |
 * | arrived(seq)     | seq is early already | drop it                                        | unchanged             |
 * | gapExpired       | early is not empty   | report what is missing, apply up to next hole  | after the last one    |
 * | skipped(oldest)  | oldest > next        | apply what is early before it, and what follows | after the last one   |
 * | restarted        |                      | apply everything early in order                | null                  |
 *
 * `skipped`: nothing before `oldest` will come any more; what is missing has arrived before, or comes as a later number.
 */
export interface OrderState {
  readonly next: number | null;
  readonly early: readonly number[];
}

export type OrderEvent =
  | { readonly type: "arrived"; readonly seq: number }
  | { readonly type: "gapExpired" }
  | { readonly type: "skipped"; readonly oldest: number }
  | { readonly type: "restarted" };

export type OrderEffect =
  | { readonly type: "apply"; readonly seq: number }
  | { readonly type: "keep"; readonly seq: number }
  | { readonly type: "drop"; readonly seq: number }
  | { readonly type: "missing"; readonly count: number };

type Outcome = readonly [OrderState, readonly OrderEffect[]];

/** Applies `first` and whatever follows it without a hole. */
const applyFrom = (first: number, waiting: readonly number[]): Outcome => {
  const effects: OrderEffect[] = [];
  let next = first;
  let taken = 0;
  while (taken < waiting.length && waiting[taken] === next) {
    effects.push({ type: "apply", seq: next });
    next += 1;
    taken += 1;
  }
  return [{ next, early: waiting.slice(taken) }, effects];
};

const giveUpGap = (next: number, waiting: readonly number[]): Outcome => {
  const first = waiting[0];
  if (first === undefined) return [{ next, early: [] }, []];
  const [state, effects] = applyFrom(first, waiting);
  return [state, [{ type: "missing", count: first - next }, ...effects]];
};

const skipped = (state: OrderState, oldest: number): Outcome => {
  if (state.next === null || oldest <= state.next) return [state, []];
  const before = state.early.filter((seq) => seq < oldest);
  const waiting = state.early.filter((seq) => seq >= oldest);
  const [after, effects]: Outcome =
    waiting[0] === oldest ? applyFrom(oldest, waiting) : [{ next: oldest, early: waiting }, []];
  return [after, [...before.map((seq) => ({ type: "apply", seq }) as const), ...effects]];
};

const arrived = (state: OrderState, seq: number): Outcome => {
  const { next, early } = state;
  if (early.includes(seq)) return [state, [{ type: "drop", seq }]];
  if (next !== null && seq < next) return [state, [{ type: "apply", seq }]];
  const waiting = [...early, seq].sort((a, b) => a - b);
  if (next === null || seq === next) return applyFrom(seq, waiting);
  if (early.length < EARLY_MESSAGES_MAX) return [{ next, early: waiting }, [{ type: "keep", seq }]];
  const [after, effects] = giveUpGap(next, waiting);
  // The newcomer may lie beyond the next hole, where there is room for it now.
  const applied = effects.some((effect) => effect.type === "apply" && effect.seq === seq);
  return [after, applied ? effects : [...effects, { type: "keep", seq }]];
};

export const step = (state: OrderState, event: OrderEvent): Outcome => {
  switch (event.type) {
    case "arrived":
      return arrived(state, event.seq);
    case "gapExpired":
      return state.next === null ? [state, []] : giveUpGap(state.next, state.early);
    case "skipped":
      return skipped(state, event.oldest);
    case "restarted":
      return [{ next: null, early: [] }, state.early.map((seq) => ({ type: "apply", seq }))];
    default:
      return assertNever(event);
  }
};
