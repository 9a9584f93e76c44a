import * as v from "valibot";
import { Emitter, type Event } from "#shared/base/emitter.ts";
import { DRAIN_TIMEOUT_MS, PROFILE_NAME_LENGTH_MAX } from "#shared/base/limits.ts";
import type { SettingsView } from "#shared/ipc/views.ts";
import type { Database } from "./store/database.ts";
import { SettingsTable } from "./store/settings.ts";

const Saved = v.object({
  downloadDirectory: v.optional(v.string()),
  drainTimeoutMs: v.optional(v.number()),
  downloadBytesPerSecond: v.optional(v.nullable(v.number())),
  uploadBytesPerSecond: v.optional(v.nullable(v.number())),
  chunkStorageBytes: v.optional(v.nullable(v.number())),
  theme: v.optional(v.picklist(["system", "light", "dark"])),
  server: v.optional(v.string()),
  readReceipts: v.optional(v.boolean()),
  typingIndicators: v.optional(v.boolean()),
  lanDiscovery: v.optional(v.boolean()),
  activityGuards: v.optional(v.object({ lock: v.boolean(), batches: v.boolean(), sequence: v.boolean() })),
});
const Name = v.pipe(v.string(), v.minLength(1), v.maxLength(PROFILE_NAME_LENGTH_MAX));
const Port = v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(65535));

/** What the user chose, kept in app.db; what was never chosen has its default from the host. */
export class Settings {
  readonly #table: SettingsTable;
  readonly #defaults: SettingsView;
  readonly #changed: Emitter<SettingsView>;
  readonly onChanged: Event<SettingsView>;
  /** From the command line: wins over what is saved, and is not saved. */
  readonly #overrides: Partial<SettingsView>;

  constructor(
    db: Database,
    host: { defaultDownloadDirectory: string; overrides: Partial<SettingsView> },
    onListenerError: (error: unknown) => void,
  ) {
    this.#table = new SettingsTable(db);
    this.#overrides = host.overrides;
    this.#defaults = {
      downloadDirectory: host.defaultDownloadDirectory,
      drainTimeoutMs: DRAIN_TIMEOUT_MS,
      downloadBytesPerSecond: null,
      uploadBytesPerSecond: null,
      chunkStorageBytes: null,
      theme: "system",
      server: "embedded",
      readReceipts: true,
      typingIndicators: true,
      lanDiscovery: false,
      activityGuards: { lock: true, batches: true, sequence: true },
    };
    this.#changed = new Emitter(onListenerError);
    this.onChanged = this.#changed.event;
  }

  get(): SettingsView {
    return { ...this.#defaults, ...withoutUndefined(this.#table.get("settings", Saved) ?? {}), ...this.#overrides };
  }

  set(change: { [Key in keyof SettingsView]?: SettingsView[Key] | undefined }): SettingsView {
    const wanted = withoutUndefined(change);
    // A choice made in the running program ends the override, or it would seem to have no effect.
    for (const key of Object.keys(wanted)) Reflect.deleteProperty(this.#overrides, key);
    this.#table.set("settings", { ...this.#table.get("settings", Saved), ...wanted });
    const view = this.get();
    this.#changed.emit(view);
    return view;
  }

  /** The display name; "" until the user gave one. */
  get name(): string {
    return this.#table.get("profile.name", Name) ?? "";
  }
  set name(name: string) {
    this.#table.set("profile.name", name);
  }

  /** The port that the embedded server had last time: invitations name it, so it should stay. */
  get embeddedPort(): number {
    return this.#table.get("server.port", Port) ?? 0;
  }
  set embeddedPort(port: number) {
    this.#table.set("server.port", port);
  }
}

const withoutUndefined = <T extends object>(value: T): { [Key in keyof T]: Exclude<T[Key], undefined> } =>
  Object.fromEntries(Object.entries(value).filter(([, item]) => item !== undefined)) as {
    [Key in keyof T]: Exclude<T[Key], undefined>;
  };
