import { SvelteMap } from "svelte/reactivity";
import type { Result } from "#shared/base/result.ts";

/**
 * The newest snapshot of each thing of one kind. Events replace single entries, `load` replaces all of them.
 * **Invariant:** a list that was asked for before an event never undoes that event.
 */
export class Snapshots<View extends object> {
  readonly #byId = new SvelteMap<string, View>();
  readonly #idOf: (view: View) => string;
  /** Ids that an event changed while a list is under way: for these the event is newer than the list. */
  #changedSinceAsked = new Set<string>();
  #loads = 0;

  constructor(idOf: (view: View) => string) {
    this.#idOf = idOf;
  }

  get(id: string): View | undefined {
    return this.#byId.get(id);
  }

  values(): View[] {
    return [...this.#byId.values()];
  }

  get size(): number {
    return this.#byId.size;
  }

  set(view: View): void {
    const id = this.#idOf(view);
    this.#changedSinceAsked.add(id);
    this.#byId.set(id, view);
  }

  delete(id: string): void {
    this.#changedSinceAsked.add(id);
    this.#byId.delete(id);
  }

  /** Fetches the list and takes it over. A newer call makes the answer of an older one void. */
  async load(list: () => Promise<Result<View[]>>): Promise<Result<View[]>> {
    this.#loads += 1;
    const generation = this.#loads;
    this.#changedSinceAsked = new Set();
    const changed = this.#changedSinceAsked;
    const result = await list();
    if (!result.ok || generation !== this.#loads) return result;
    const listed = new Set(result.value.map(this.#idOf));
    for (const id of [...this.#byId.keys()]) {
      if (!listed.has(id) && !changed.has(id)) this.#byId.delete(id);
    }
    for (const view of result.value) {
      const id = this.#idOf(view);
      if (!changed.has(id)) this.#byId.set(id, view);
    }
    return result;
  }
}
