import { runElectron } from "./host/electron/run.ts";
import { startApp } from "./start-app.ts";

/** The Electron program. Everything up to "ready" happens before this call returns, as Electron demands. */
void runElectron(startApp);
