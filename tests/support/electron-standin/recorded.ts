/**
 * What the stand-in cannot do (menus, dialogs, opening programs) it records, so that a test can look:
 * `app.evaluate(({ standin }) => standin.calls)`. Answers of dialogs are set by the test in `standin.answers`.
 */
export interface RecordedCall {
  readonly name: string;
  readonly args: readonly unknown[];
}

const CALLS_MAX = 10_000;

export const standin = {
  calls: [] as RecordedCall[],
  answers: {
    showMessageBox: 0,
    showOpenDialog: [] as string[],
  },
};

export const record = (name: string, ...args: unknown[]): void => {
  standin.calls.push({ name, args });
  if (standin.calls.length > CALLS_MAX) standin.calls.shift();
};

/** An object whose named methods are recorded and return undefined. */
export const recorded = <const Name extends string>(
  owner: string,
  names: readonly Name[],
): Record<Name, (...args: unknown[]) => undefined> => {
  const methods: Record<string, (...args: unknown[]) => undefined> = {};
  for (const name of names) {
    methods[name] = (...args) => {
      record(`${owner}.${name}`, ...args);
      return undefined;
    };
  }
  return methods as Record<Name, (...args: unknown[]) => undefined>;
};

/** Electron's preventable event. */
export class PreventableEvent {
  defaultPrevented = false;
  preventDefault(): void {
    this.defaultPrevented = true;
  }
}
