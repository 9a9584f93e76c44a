import type { ThemeSetting } from "#shared/ipc/views.ts";

const KEY = "weir.theme";

/** The colours follow `color-scheme`; "system" leaves the choice to the browser, without a listener of ours. */
export const applyTheme = (theme: ThemeSetting): void => {
  document.documentElement.dataset["theme"] = theme;
  localStorage.setItem(KEY, theme);
};

export const rememberedTheme = (): ThemeSetting => {
  const saved = localStorage.getItem(KEY);
  return saved === "light" || saved === "dark" ? saved : "system";
};
