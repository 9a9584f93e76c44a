import { toHex } from "#shared/base/bytes.ts";
import { type Disposable, DisposableStore } from "#shared/base/disposable.ts";
import type { Env } from "#shared/base/env.ts";
import type { UserId } from "#shared/base/ids.ts";
import { ACTIVITY_INTERVAL_MS, ACTIVITY_QUICK_CHECK_EVENTS, ACTIVITY_REPORT_EVENTS } from "#shared/base/limits.ts";
import { fail, messageOf, ok, type Result } from "#shared/base/result.ts";
import type {
  ActivityCheckView,
  ActivityGuardsView,
  ActivityHealth,
  ActivityRunView,
  ActivitySummary,
  AvailabilityView,
  TransferDetailsView,
} from "#shared/ipc/views.ts";
import type { Database } from "../store/database.ts";
import { Aggregation } from "./aggregation.ts";
import { Aggregator } from "./aggregator.ts";
import { type ActivityEvent, decodeEvent } from "./events.ts";
import { ActivityRecorder, type RecorderSources } from "./recorder.ts";
import { checkSums } from "./replay.ts";
import { availabilityOf, detailsOf, type Period, summaryOf } from "./summary.ts";

export interface ActivityDeps {
  readonly env: Env;
  readonly db: Database;
  readonly self: UserId;
  readonly guards: () => ActivityGuardsView;
}

/** What happened on this device, and what it sums up to. Nothing of it leaves the device. */
export interface Activity extends Disposable {
  /** From now on what these tell is logged; the returned one ends it and says that the program stopped. */
  record(sources: RecorderSources): Disposable;
  run(): Promise<ActivityRunView>;
  /** Takes up what was logged until now, unless a run is under way already. */
  summary(period: Period): Promise<ActivitySummary>;
  transfer(fileId: string): Promise<TransferDetailsView>;
  availability(userId: string): AvailabilityView;
  health(): Promise<ActivityHealth>;
  /** `busy` while events are taken up without end. */
  check(repair: boolean): Promise<Result<ActivityCheckView>>;
  deleteHistory(): Promise<ActivityHealth>;
  /** The newest events, oldest of them first, with the ids of people and files in them. */
  recent(): ActivityEvent[];
}

/** A check that begins again because the log moved, gives up after this many times. */
const CHECK_TRIES = 20;

export const createActivity = (deps: ActivityDeps): Activity => {
  const { env, db, self, guards } = deps;
  const owned = new DisposableStore();
  const owner = toHex(env.random.bytes(8));
  const aggregation = new Aggregation({ env, db, self, owner });
  const pause = (): Promise<void> => new Promise((resolve) => void env.clock.setTimer(0, resolve));
  const aggregator = owned.add(new Aggregator({ env, aggregation, guards, pause }));
  let recorder: ActivityRecorder | null = null;
  let timer: Disposable | null = null;
  /** By this process: what an earlier one found says nothing of what happened to the file since. */
  let lastCheck: { cursor: number; atMs: number } | null = null;

  if (aggregation.recover()) env.log.warn("a run of the activity log had not ended; its lock was taken away");
  const taken = aggregation.takeBackAside();
  if (taken > 0) env.log.info("events that were unknown before are taken up", { events: taken });
  const isFirst = aggregation.log.top() === 0;
  aggregation.log.follow(self, env.clock);

  const backlog = (): number => aggregation.log.top() - aggregation.sums.state().cursor;
  const run = async (): Promise<ActivityRunView> => {
    recorder?.flush({ all: true });
    return aggregator.run();
  };
  const catchUp = async (): Promise<void> => {
    recorder?.flush({ all: true });
    if (backlog() > 0) await aggregator.run();
  };
  const check = async (repair: boolean): Promise<Result<ActivityCheckView>> => {
    for (let i = 0; i < CHECK_TRIES && !owned.disposed; i++) {
      const checked = await checkSums(aggregation, db, { pause, nowMs: () => env.clock.now(), repair });
      if (checked === null) continue;
      lastCheck = { cursor: aggregation.sums.state().cursor, atMs: env.clock.monotonicMs() };
      return ok(checked);
    }
    return fail("busy", "Events are being taken up all the time. Try again in a moment.");
  };
  const health = async (): Promise<ActivityHealth> => {
    const before = aggregation.sums.state();
    const isQuick = before.cursor - before.baseCursor <= ACTIVITY_QUICK_CHECK_EVENTS;
    const isDue =
      lastCheck === null ||
      (lastCheck.cursor !== before.cursor && env.clock.monotonicMs() - lastCheck.atMs > ACTIVITY_INTERVAL_MS);
    if (isDue && isQuick && !aggregator.isRunning) await check(false);
    const state = aggregation.sums.state();
    return {
      consistent: state.consistent === 1,
      checkedAtMs: state.checkedAt,
      lastRunAtMs: state.lastRunAt,
      lastRunMs: state.lastRunMs,
      lastRunEvents: state.lastRunEvents,
      lastError: state.lastError,
      backlog: backlog(),
      events: aggregation.log.top() - state.baseCursor,
      aside: aggregation.log.asideCount(),
      gaps: aggregation.log.gapCount(),
      recoveries: state.recoveries,
      dropped: recorder?.dropped ?? 0,
      running: aggregator.isRunning,
      guards: guards(),
    };
  };
  const everyMinute = (): void => {
    timer = env.clock.setTimer(ACTIVITY_INTERVAL_MS, () => {
      catchUp()
        .catch((error: unknown) => env.log.error("the activity log was not taken up", { error: messageOf(error) }))
        .finally(() => {
          if (!owned.disposed) everyMinute();
        });
    });
  };
  everyMinute();

  return {
    record(sources) {
      recorder = new ActivityRecorder({ env, db, log: aggregation.log, sources, isFirst });
      return recorder;
    },
    run,
    async summary(period) {
      await catchUp();
      return summaryOf(aggregation.sums, period, env.clock.now());
    },
    async transfer(fileId) {
      await catchUp();
      return detailsOf(aggregation.sums, fileId);
    },
    availability: (userId) => availabilityOf(aggregation.sums, userId, env.clock.now()),
    health,
    check,
    recent: () =>
      aggregation.log
        .newest(ACTIVITY_REPORT_EVENTS)
        .map(decodeEvent)
        .filter((event) => event !== null),
    deleteHistory() {
      aggregation.deleteHistory();
      recorder?.restart();
      return health();
    },
    dispose() {
      timer?.dispose();
      owned.dispose();
    },
  };
};
