import type { Event } from "#shared/base/emitter.ts";
import type { Result } from "#shared/base/result.ts";
import type { CommandName, CommandOutput, CommandValue, ContractEvents, EventName } from "#shared/ipc/contract.ts";

/** One function per command of the contract; inputs are already validated. */
export type Handlers = {
  readonly [Name in CommandName]: (
    input: CommandValue<Name>,
  ) => Result<CommandOutput<Name>> | Promise<Result<CommandOutput<Name>>>;
};

/** The commands that only the window's surroundings can run; each host brings its own. */
export type HostHandlers = Pick<Handlers, Extract<CommandName, `host.${string}`>>;
export type AppHandlers = Omit<Handlers, keyof HostHandlers>;

/** A snapshot on its way to the renderers. */
export type PublishedEvent = { [Name in EventName]: { event: Name; payload: ContractEvents[Name] } }[EventName];
export type EventSource = Event<PublishedEvent>;
