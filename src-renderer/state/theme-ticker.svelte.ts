import { createSubscriber } from "svelte/reactivity";

/** Whoever reads it runs again when the colours may be others: the system's scheme, or the person's choice of a theme. */
const subscribe = createSubscriber((update) => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  dark.addEventListener("change", update);
  const chosen = new MutationObserver(update);
  chosen.observe(document.documentElement, { attributeFilter: ["data-theme"] });
  return () => {
    dark.removeEventListener("change", update);
    chosen.disconnect();
  };
});

export const followTheme = (): void => subscribe();
