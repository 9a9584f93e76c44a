import { readFileSync, writeFileSync } from "node:fs";
import type { WebTorrentTimes } from "./webtorrent.ts";

/**
 * `node tests/bench/plot.ts docs/benchmarks/results.jsonl docs/benchmarks/results.svg`: draws what `npm run bench` printed:
 * bars of MB/s for `transfer`, `webtorrent`, `seeders` and `folder`, of Mbit/s for `impaired`, and memory along the largest
 * transfer.
 */
interface Bar {
  readonly label: string;
  readonly value: number;
  readonly tone: number;
}
interface Panel {
  readonly title: string;
  readonly height: number;
  readonly body: string;
}
type Line = Record<string, unknown> & { readonly bench: string };

const WIDTH = 720;
const LEFT = 240;
const BAR_HEIGHT = 18;
const TONES = ["--a", "--b", "--c"];

const escaped = (text: string): string => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
const text = (x: number, y: number, words: string, more = ""): string =>
  `<text x="${x}" y="${y}" ${more}>${escaped(words)}</text>`;

const bars = (title: string, unit: string, list: readonly Bar[]): Panel[] => {
  if (list.length === 0) return [];
  const most = Math.max(...list.map(({ value }) => value));
  const row = ({ label, value, tone }: Bar, index: number): string => {
    const y = 34 + index * (BAR_HEIGHT + 6);
    const width = Math.max(1, (value / most) * (WIDTH - LEFT - 90));
    return `${text(LEFT - 10, y + 13, label, 'text-anchor="end"')}
<rect x="${LEFT}" y="${y}" width="${width.toFixed(1)}" height="${BAR_HEIGHT}" rx="3" fill="var(${TONES[tone]})"/>
${text(LEFT + width + 6, y + 13, `${value} ${unit}`)}`;
  };
  const height = 48 + list.length * (BAR_HEIGHT + 6);
  return [{ title, height, body: list.map(row).join("\n") }];
};

const CURVE_HEIGHT = 160;
const curves = (title: string, points: readonly (readonly (number | null)[])[]): Panel[] => {
  const series = [0, 1].map((side) => points.map((point) => point[side] ?? 0));
  const most = Math.max(1, ...series.flat());
  if (points.length < 2) return [];
  const x = (index: number): number => 80 + (index / (points.length - 1)) * (WIDTH - 240);
  const y = (value: number): number => 30 + (1 - value / most) * (CURVE_HEIGHT - 40);
  const drawn = series.map((values, side) => {
    const path = values.map((value, index) => `${x(index).toFixed(1)},${y(value).toFixed(1)}`).join(" ");
    const name = side === 0 ? "seeder" : "downloader";
    const end = values.at(-1) ?? 0;
    return `<polyline points="${path}" fill="none" stroke="var(${TONES[side]})" stroke-width="2"/>
${text(WIDTH - 152, y(end) + 4, `${name} ${end} MiB`)}`;
  });
  const axis = `<line x1="80" x2="${WIDTH - 160}" y1="${y(0)}" y2="${y(0)}" stroke="var(--ink)" stroke-opacity=".3"/>
${text(70, y(0) + 4, "0", 'text-anchor="end"')}${text(70, y(most) + 4, `${most} MiB`, 'text-anchor="end"')}`;
  return [{ title, height: CURVE_HEIGHT + 20, body: [axis, ...drawn].join("\n") }];
};

const numberOf = (line: Line, key: string): number => (typeof line[key] === "number" ? line[key] : 0);
const sizeOf = (line: Line): string => {
  const mib = numberOf(line, "sizeMiB");
  return mib >= 1024 ? `${Math.round(mib / 102.4) / 10} GiB` : `${Math.round(mib)} MiB`;
};

const panelsOf = (lines: readonly Line[]): Panel[] => {
  const named = (bench: string): Line[] => lines.filter((line) => line.bench === bench);
  const transfers = named("transfer").flatMap((line): Bar[] => [
    { label: `${sizeOf(line)}: node-datachannel alone`, value: numberOf(line, "rawMBps"), tone: 2 },
    { label: "download", value: numberOf(line, "downloadMBps"), tone: 0 },
    { label: "start to complete", value: numberOf(line, "totalMBps"), tone: 1 },
  ]);
  const beside = named("webtorrent").flatMap((line): Bar[] => {
    const { plain, encrypted } = line["webTorrent"] as Record<"plain" | "encrypted", WebTorrentTimes>;
    const rate = (ms: number): number => Math.round((numberOf(line, "sizeMiB") * 1.048576 * 10_000) / ms) / 10;
    return [
      { label: `${sizeOf(line)}: Weir, start to complete`, value: numberOf(line, "totalMBps"), tone: 0 },
      { label: "WebTorrent, TCP, encrypted", value: rate(encrypted.downloadMs), tone: 2 },
      { label: "WebTorrent, TCP, plain", value: rate(plain.downloadMs), tone: 2 },
    ];
  });
  const swarm = named("seeders").flatMap((line): Bar[] =>
    (line["runs"] as { seeders: number; downloadMBps: number }[]).map(({ seeders, downloadMBps }, tone) => ({
      ...{ label: `${sizeOf(line)} from ${seeders} on one machine`, value: downloadMBps, tone: tone === 0 ? 2 : 0 },
    })),
  );
  const folders = named("folder").flatMap((line): Bar[] => [
    { label: `one file of ${sizeOf(line)}`, value: numberOf(line["file"] as Line, "totalMBps"), tone: 2 },
    { label: `${numberOf(line, "files")} files of 10 KiB`, value: numberOf(line, "totalMBps"), tone: 0 },
  ]);
  const paths = named("impaired").flatMap((line): Panel[] =>
    Object.entries(line).flatMap(([network, found]): Panel[] => {
      if (network === "bench" || network === "machine") return [];
      const rates = found as Record<"one" | "striped" | "fourSeeders" | "tcp", { readonly settled: number }>;
      return bars(`Round trip ${network}`, "Mbit/s", [
        { label: "one association", value: rates.one.settled, tone: 2 },
        { label: "with stripes", value: rates.striped.settled, tone: 0 },
        { label: "with stripes, from four", value: rates.fourSeeders.settled, tone: 0 },
        { label: "TCP", value: rates.tcp.settled, tone: 2 },
      ]);
    }),
  );
  const largest = named("transfer").sort((a, b) => numberOf(b, "sizeMiB") - numberOf(a, "sizeMiB"))[0];
  const memory = (largest?.["rssAboveIdleMiB"] ?? []) as (number | null)[][];
  return [
    ...bars("Over loopback", "MB/s", transfers),
    ...bars("Beside WebTorrent", "MB/s", beside),
    ...bars("Download by number of seeders", "MB/s", swarm),
    ...bars("Many small files", "MB/s", folders),
    ...paths,
    ...(largest === undefined ? [] : curves(`Memory above idle along a download of ${sizeOf(largest)}`, memory)),
  ];
};

const draw = (panels: readonly Panel[]): string => {
  let top = 10;
  const drawn = panels.map(({ title, height, body }) => {
    const at = top;
    top += height;
    return `<g transform="translate(0 ${at})">${text(10, 18, title, 'font-weight="600"')}\n${body}</g>`;
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${top}" font-family="system-ui, sans-serif" font-size="13" role="img" aria-label="Benchmark results">
<style>svg{--ink:#1c2430;--paper:#fff;--a:#2f6fde;--b:#7aa7ee;--c:#9aa3af}
@media (prefers-color-scheme:dark){svg{--ink:#e8ecf2;--paper:#14181f;--a:#6ea2ff;--b:#3d6dbb;--c:#6b7482}}text{fill:var(--ink)}</style>
<rect width="100%" height="100%" fill="var(--paper)"/>
${drawn.join("\n")}
</svg>
`;
};

const [from, to] = process.argv.slice(2);
if (from === undefined || to === undefined) throw new Error("node tests/bench/plot.ts RESULTS.jsonl PLOT.svg");
const lines = readFileSync(from, "utf8").trim().split("\n");
writeFileSync(to, draw(panelsOf(lines.map((line) => JSON.parse(line) as Line))));
