import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import { tmpdir } from "node:os";
import { extname, join } from "node:path";
import { type Browser, chromium, type Page } from "playwright-core";
import { build } from "vite";
import { ensureAppBuilt } from "../../scripts/app-build.ts";
import { contentSecurityPolicy, securityHeaders } from "../../src-main/host/policy/csp.ts";
import { type AxeRules, axeViolations } from "./axe.ts";
import type { Scenario } from "./fake-weir-page.ts";
import { SAMPLE_NOW_MS } from "./fake-weir-sample.ts";

/** The built window in a real browser, under the policy of the product, with the fake in place of the main process. */
const root = join(import.meta.dirname, "../..");
const CHROMIUM = process.env["WEIR_CHROMIUM"] ?? "/usr/bin/chromium";
const CONTENT_TYPES: Record<string, string> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".svg": "image/svg+xml",
  ".woff2": "font/woff2",
};

/** What the desktop program and the headless host show, built only when its sources have changed. */
const builtRenderer = async (): Promise<string> => {
  const app = await ensureAppBuilt();
  if (app.type === "failed" || app.type === "impossible") throw new Error(app.message);
  return join(root, "out/renderer");
};

const bundleFake = async (outDir: string): Promise<string> => {
  await build({
    configFile: false,
    root,
    logLevel: "warn",
    build: {
      outDir,
      emptyOutDir: true,
      minify: false,
      lib: {
        entry: join(root, "tests/support/fake-weir-page.ts"),
        formats: ["iife"],
        name: "fakeWeirPage",
        fileName: () => "fake.js",
      },
    },
  });
  return readFile(join(outDir, "fake.js"), "utf8");
};

const serve = async (directory: string): Promise<{ server: Server; url: string }> => {
  const headers = securityHeaders(contentSecurityPolicy());
  const server = createServer((request, response) => {
    const { pathname } = new URL(request.url ?? "/", "http://127.0.0.1");
    const name = pathname === "/" ? "/index.html" : pathname;
    readFile(join(directory, name)).then(
      (body) => {
        response.writeHead(200, { ...headers, "content-type": CONTENT_TYPES[extname(name)] ?? "text/plain" }).end(body);
      },
      () => response.writeHead(404, headers).end(),
    );
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("the test server has no port");
  return { server, url: `http://127.0.0.1:${address.port}/` };
};

export interface OpenOptions {
  readonly scenario: Scenario;
  readonly theme?: "light" | "dark";
  readonly width?: number;
  readonly height?: number;
}

export interface Window {
  readonly page: Page;
  /** What must stay empty: console errors, page errors and violations of the content security policy. */
  readonly problems: string[];
  /** Runs code against `fake`, the FakeWeir of this page. */
  fake(code: string): Promise<unknown>;
  /** Keeps the page for the next window: a fresh one takes four times as long. Whoever fails before it leaves the page behind. */
  close(): Promise<void>;
}

interface Tab {
  readonly page: Page;
  readonly problems: string[];
}

const STORES = "localStorage.clear(); sessionStorage.clear()";

export class UiHarness {
  readonly #directory: string;
  readonly #server: Server;
  readonly #browser: Browser;
  readonly #fakeSource: string;
  readonly #idle: Tab[] = [];
  readonly url: string;

  private constructor(parts: {
    directory: string;
    server: Server;
    url: string;
    browser: Browser;
    fakeSource: string;
  }) {
    this.#directory = parts.directory;
    this.#server = parts.server;
    this.#browser = parts.browser;
    this.#fakeSource = parts.fakeSource;
    this.url = parts.url;
  }

  static async start(): Promise<UiHarness> {
    const directory = await mkdtemp(join(tmpdir(), "weir-ui-"));
    const fakeSource = await bundleFake(directory);
    const { server, url } = await serve(await builtRenderer());
    const browser = await chromium.launch({
      executablePath: CHROMIUM,
      args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--force-color-profile=srgb"],
    });
    return new UiHarness({ directory, server, url, browser, fakeSource });
  }

  async open({ scenario, theme = "light", width = 1180, height = 780 }: OpenOptions): Promise<Window> {
    const tab = this.#idle.pop() ?? (await this.#newTab());
    const { page, problems } = tab;
    await page.setViewportSize({ width, height });
    await page.emulateMedia({ colorScheme: theme });
    await page.goto(`${this.url}?scenario=${scenario}`);
    await page.evaluate("document.fonts.ready.then(() => undefined)");
    return {
      page,
      problems,
      fake: (code) => page.evaluate(`(() => { ${code} })()`),
      close: () => this.#keep(tab),
    };
  }

  async #newTab(): Promise<Tab> {
    const context = await this.#browser.newContext({
      reducedMotion: "reduce",
      locale: "en-GB",
      permissions: ["clipboard-read", "clipboard-write"],
    });
    const page = await context.newPage();
    const problems: string[] = [];
    page.on("console", (message) => {
      if (message.type() === "error") problems.push(`console: ${message.text()}`);
    });
    page.on("pageerror", (error) => problems.push(`page: ${error.message}`));
    await page.exposeFunction("reportViolation", (text: string) => problems.push(`policy: ${text}`));
    await page.clock.setFixedTime(SAMPLE_NOW_MS);
    await page.addInitScript({
      content: `if (location.protocol === "http:") {
        ${this.#fakeSource}
        globalThis.fake = makeFake(new URLSearchParams(location.search).get("scenario"));
        globalThis.weir = fake.weir;
        document.addEventListener("securitypolicyviolation", (event) =>
          reportViolation(event.violatedDirective + " " + event.blockedURI + " " + event.sample));
      }`,
    });
    return { page, problems };
  }

  /** As if it were new: nothing stored, nothing under the pointer, nothing shown. */
  async #keep(tab: Tab): Promise<void> {
    const { page, problems } = tab;
    await page.evaluate(STORES);
    await page.mouse.move(0, 0);
    await page.goto("about:blank");
    problems.length = 0;
    this.#idle.push(tab);
  }

  /** Accessibility rules that the page breaks, one line each. */
  axe(page: Page, rules: AxeRules = "all"): Promise<string[]> {
    return axeViolations(page, rules);
  }

  async stop(): Promise<void> {
    await this.#browser.close();
    await new Promise((resolve) => this.#server.close(resolve));
    await rm(this.#directory, { recursive: true, force: true });
  }
}
