import "@fontsource-variable/inter/wght.css";
import "./app.css";
import { mount } from "svelte";
import { defined } from "#shared/base/assert.ts";
import { openApi } from "./api.ts";
import { Weir } from "./state/weir.svelte.ts";
import { applyTheme, rememberedTheme } from "./theme.ts";
import App from "./views/App.svelte";

// Before anything is painted, so that a dark window does not flash white until the settings are there.
applyTheme(rememberedTheme());

const weir = new Weir(openApi());
mount(App, { target: defined(document.querySelector("#app"), "#app"), props: { weir } });
