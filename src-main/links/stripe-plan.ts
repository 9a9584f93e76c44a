import { STRIPE_GAIN_MIN, STRIPE_RTT_MIN_MS, STRIPES_FIRST, STRIPES_MAX } from "#shared/base/limits.ts";
import type { LinkPath } from "./link-state.ts";

/**
 * How many associations of one link should carry bulk frames besides its own (stripes.ts). On a path with a long round trip
 * one of them is limited by its window, and by every loss; several add up. Where the way itself is full they
 * would only take from others, so more are opened only while they make the link faster.
 *
 *   first    its own one, as every link            busy for START_TICKS on a long path        -> growing, STRIPES_FIRST
 *   growing  more are opened; after SETTLE_TICKS   JUDGE_TICKS later: faster by a share       -> growing, up to STRIPES_MAX
 *            what they add is measured                                not faster, or the most -> settled
 *            none could be opened                                                           -> settled
 */
export interface StripePlan {
  readonly stage: "first" | "growing" | "settled";
  readonly wanted: number;
  readonly ticks: number;
  readonly deliveredBytes: number;
  /** A tick, before the newest were opened. */
  readonly bytesBefore: number;
}

/** What happened since the tick before. */
export interface StripeSample {
  /** Frames were under way all the time. */
  readonly isBusy: boolean;
  /** Some of those that were wanted are still on their way. */
  readonly isOpening: boolean;
  readonly open: number;
  readonly deliveredBytes: number;
  readonly path: LinkPath | null;
  /** The shortest that was measured: a full queue makes every path look long. */
  readonly rttMs: number | null;
}

const START_TICKS = 2;
const SETTLE_TICKS = 3;
const JUDGE_TICKS = 4;

export const firstPlan: StripePlan = { stage: "first", wanted: 0, ticks: 0, deliveredBytes: 0, bytesBefore: 0 };

export const stepPlan = (plan: StripePlan, sample: StripeSample): StripePlan => {
  if (plan.stage === "settled") return plan;
  const isLong = sample.rttMs !== null && sample.rttMs >= STRIPE_RTT_MIN_MS;
  const isOwnWay = sample.path === "lan" || sample.path === "direct";
  if (plan.stage === "growing" && !sample.isOpening && sample.open === 0) return { ...plan, stage: "settled" };
  // A pause would pass for a slow path.
  if (!sample.isBusy || sample.isOpening || !isLong || !isOwnWay) return { ...plan, ticks: 0, deliveredBytes: 0 };
  const ticks = plan.ticks + 1;
  const isMeasured = plan.stage === "first" || ticks > SETTLE_TICKS;
  const deliveredBytes = isMeasured ? plan.deliveredBytes + sample.deliveredBytes : 0;
  const next = { ...plan, ticks, deliveredBytes };
  if (plan.stage === "first") return ticks < START_TICKS ? next : grown(next, STRIPES_FIRST, deliveredBytes / ticks);
  if (ticks < SETTLE_TICKS + JUDGE_TICKS) return next;
  const bytesNow = deliveredBytes / JUDGE_TICKS;
  if (plan.wanted >= STRIPES_MAX || bytesNow < plan.bytesBefore * STRIPE_GAIN_MIN) return { ...next, stage: "settled" };
  return grown(next, Math.min(STRIPES_MAX, plan.wanted * 2), bytesNow);
};

const grown = (plan: StripePlan, wanted: number, bytesBefore: number): StripePlan => ({
  ...plan,
  stage: "growing",
  wanted,
  ticks: 0,
  deliveredBytes: 0,
  bytesBefore,
});
