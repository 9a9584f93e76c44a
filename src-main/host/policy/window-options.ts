/** The options of the one window, as data, so that a test can hold them against Electron's security checklist. */
export interface WindowOptions {
  readonly title: string;
  readonly x?: number;
  readonly y?: number;
  readonly width: number;
  readonly height: number;
  readonly minWidth: number;
  readonly minHeight: number;
  readonly show: boolean;
  readonly backgroundColor: string;
  readonly autoHideMenuBar: boolean;
  readonly webPreferences: {
    readonly preload: string;
    readonly sandbox: true;
    readonly contextIsolation: true;
    readonly nodeIntegration: false;
    readonly nodeIntegrationInWorker: false;
    readonly nodeIntegrationInSubFrames: false;
    readonly webSecurity: true;
    readonly allowRunningInsecureContent: false;
    readonly experimentalFeatures: false;
    readonly webviewTag: false;
    readonly plugins: false;
    readonly navigateOnDragDrop: false;
    readonly safeDialogs: true;
    readonly spellcheck: false;
    readonly enableWebSQL: false;
    readonly webgl: false;
    readonly devTools: boolean;
  };
}

export interface Bounds {
  readonly x?: number;
  readonly y?: number;
  readonly width: number;
  readonly height: number;
}

export const windowOptions = (input: {
  readonly preload: string;
  readonly dev: boolean;
  readonly dark: boolean;
  readonly bounds: Bounds;
}): WindowOptions => ({
  title: "Weir",
  ...input.bounds,
  minWidth: 480,
  minHeight: 400,
  show: false,
  // The window's first frame, before its style sheet is there: no white flash in the dark.
  backgroundColor: input.dark ? "#111418" : "#ffffff",
  autoHideMenuBar: true,
  webPreferences: {
    preload: input.preload,
    sandbox: true,
    contextIsolation: true,
    nodeIntegration: false,
    nodeIntegrationInWorker: false,
    nodeIntegrationInSubFrames: false,
    webSecurity: true,
    allowRunningInsecureContent: false,
    experimentalFeatures: false,
    webviewTag: false,
    plugins: false,
    navigateOnDragDrop: false,
    safeDialogs: true,
    // The spell checker would fetch its dictionaries from a server of its own.
    spellcheck: false,
    enableWebSQL: false,
    webgl: false,
    devTools: input.dev,
  },
});
