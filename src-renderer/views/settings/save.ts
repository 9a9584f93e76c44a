import { toast } from "svelte-sonner";
import type { CommandInput } from "#shared/ipc/contract.ts";
import type { Weir } from "../../state/weir.svelte.ts";

/** Saves at once, as settings without a form do; a refusal is told in words and the control falls back. */
export const save = async (weir: Weir, changes: CommandInput<"settings.set">): Promise<void> => {
  const saved = await weir.setSettings(changes);
  if (!saved.ok) toast.error(saved.error.message);
};
