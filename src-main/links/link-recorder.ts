import * as v from "valibot";
import { LINK_RECORDING_STEPS_MAX } from "#shared/base/limits.ts";
import { fail, messageOf, ok, type Result } from "#shared/base/result.ts";
import type { LinkState } from "#shared/ipc/views.ts";
import type { LinkSignal } from "#shared/wire/content.ts";
import { stepLink } from "./link-machine.ts";
import type { Candidate, LinkEvent, LinkInput, LinkMachineState } from "./link-state.ts";
import { parseCandidate } from "./sdp.ts";
import { isRelayDescription, RELAY_MARK } from "./transport.ts";

/**
 * The newest steps of all link machines, so that what happened on somebody's machine can be run again on a developer's:
 * what a machine was told, and where that left it. Descriptions, addresses and words of others are left out; of each,
 * only that stays which the machine goes by.
 */
export interface LinkRecording {
  readonly links: readonly RecordedLink[];
}
interface RecordedLink {
  /** Counts the links of this run of the program. */
  readonly link: number;
  /** Before the first of its steps that is still there. */
  readonly start: LinkMachineState;
  readonly steps: readonly RecordedStep[];
}
interface RecordedStep {
  readonly input: LinkInput;
  readonly result: Outcome;
}
interface Outcome {
  readonly phase: LinkState;
  readonly generation: number;
  readonly next: string | null;
  readonly staleEvents: number;
}

const outcomeOf = ({ phase, generation, next, staleEvents }: LinkMachineState): Outcome => ({
  phase: phase.name,
  generation,
  next: next === null ? null : `${next.purpose}: ${next.stage.name}`,
  staleEvents,
});

// ---- Recording --------------------------------------------------------------------------------------------------------

interface Recorded {
  readonly link: number;
  start: LinkMachineState;
  readonly steps: { readonly input: LinkInput; readonly after: LinkMachineState }[];
}

/** At most LINK_RECORDING_STEPS_MAX steps, of whichever links; what changed nothing is left out. */
export class LinkRecorder {
  readonly #order: Recorded[] = [];
  #links = 0;

  /** One more link, at the start of its life. */
  add(start: LinkMachineState): (input: LinkInput, after: LinkMachineState) => void {
    const recorded: Recorded = { link: ++this.#links, start, steps: [] };
    return (input, after) => {
      if (after === (recorded.steps.at(-1)?.after ?? recorded.start)) return;
      recorded.steps.push({ input: { ...input, event: withoutContent(input.event) }, after });
      this.#order.push(recorded);
      if (this.#order.length > LINK_RECORDING_STEPS_MAX) this.#dropOldest();
    };
  }

  #dropOldest(): void {
    const oldest = this.#order.shift();
    const step = oldest?.steps.shift();
    if (oldest !== undefined && step !== undefined) oldest.start = step.after;
  }

  recording(): LinkRecording {
    const links = [...new Set(this.#order)].map(({ link, start, steps }) => ({
      link,
      start: stateWithoutContent(start),
      steps: steps.map(({ input, after }) => ({ input, result: outcomeOf(after) })),
    }));
    return { links };
  }
}

/** What the machine goes by: over the relay, or not. */
const sdpWithoutContent = (sdp: string): string =>
  isRelayDescription(sdp) ? `\r\n${RELAY_MARK}` : `${sdp.length} characters`;

/** What the machine goes by: its type. */
const candidateWithoutContent = <C extends Candidate>(candidate: C): C => {
  const type = parseCandidate(candidate.candidate)?.type;
  const line = type === undefined ? "unknown" : `candidate:1 1 udp 1 address 9 typ ${type}`;
  return { ...candidate, candidate: line, mid: "" };
};

/** Reasons are names of ours; the peer's may be anything. */
const REASON = /^[a-z_]{1,40}$/;
const reasonWithoutContent = (reason: string): string => (REASON.test(reason) ? reason : "other");

const signalWithoutContent = (signal: LinkSignal): LinkSignal => {
  if ("sdp" in signal) return { ...signal, sdp: sdpWithoutContent(signal.sdp) };
  if ("candidate" in signal) return candidateWithoutContent(signal);
  return "reason" in signal ? { ...signal, reason: reasonWithoutContent(signal.reason) } : signal;
};

const withoutContent = (event: LinkEvent): LinkEvent => {
  if ("sdp" in event) return { ...event, sdp: sdpWithoutContent(event.sdp) };
  if ("candidate" in event) return candidateWithoutContent(event);
  if ("reason" in event) return { ...event, reason: reasonWithoutContent(event.reason) };
  return "signal" in event ? { ...event, signal: signalWithoutContent(event.signal) } : event;
};

/** Wherever a state keeps candidates for later, and its reason. */
const stateWithoutContent = (state: LinkMachineState): LinkMachineState => {
  const strip = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(strip);
    if (value === null || typeof value !== "object") return value;
    if ("candidate" in value && "mid" in value) return candidateWithoutContent(value as Candidate);
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, strip(item)]));
  };
  const stripped = strip(state) as LinkMachineState;
  return { ...stripped, reason: state.reason === null ? null : reasonWithoutContent(state.reason) };
};

// ---- Running it again -------------------------------------------------------------------------------------------------

const RecordingSchema = v.object({
  links: v.array(
    v.looseObject({
      link: v.number(),
      start: v.looseObject({ phase: v.looseObject({ name: v.string() }) }),
      steps: v.array(
        v.object({ input: v.looseObject({ event: v.looseObject({ type: v.string() }) }), result: v.looseObject({}) }),
      ),
    }),
  ),
});

/** From the JSON of a report; what the machine then makes of its events is for {@link replayLink} to say. */
export const readRecording = (json: unknown): Result<LinkRecording, { type: "no_recording"; message: string }> => {
  const read = v.safeParse(RecordingSchema, json);
  if (read.success) return ok(read.output as unknown as LinkRecording);
  return fail("no_recording", `This holds no recording of links: ${v.summarize(read.issues)}`);
};

export interface Divergence {
  /** Index of the step. */
  readonly step: number;
  readonly recorded: Outcome;
  /** Words when the machine failed. */
  readonly replayed: Outcome | string;
}

/** Null: the machine of this version does what that one did. */
export const replayLink = ({ start, steps }: RecordedLink): Divergence | null => {
  let state = start;
  for (const [step, { input, result }] of steps.entries()) {
    try {
      [state] = stepLink(state, input);
    } catch (error) {
      return { step, recorded: result, replayed: messageOf(error) };
    }
    const replayed = outcomeOf(state);
    const isSame = (Object.keys(replayed) as (keyof Outcome)[]).every((key) => replayed[key] === result[key]);
    if (!isSame) return { step, recorded: result, replayed };
  }
  return null;
};
