import { mkdir, open, readFile, rename } from "node:fs/promises";
import { dirname } from "node:path";
import * as v from "valibot";
import { decodeJson, encodeJson } from "#shared/wire/json.ts";
import type { Bounds } from "./policy/window-options.ts";

/** Where the window was. Kept in a small file of its own, because it is needed before the database is open. */
const coordinate = v.pipe(v.number(), v.integer(), v.minValue(-100_000), v.maxValue(100_000));
const BoundsSchema = v.strictObject({ x: coordinate, y: coordinate, width: coordinate, height: coordinate });
export type PlacedBounds = v.InferOutput<typeof BoundsSchema>;

const DEFAULT: Bounds = { width: 1120, height: 760 };
const SMALLEST = { width: 480, height: 400 };
/** So much of the title bar must be on a screen, or nobody could move the window back. */
const GRIP = { width: 120, height: 32 };

/**
 * The saved bounds if they still can be seen on one of the work areas, cut to its size; otherwise the default size,
 * placed by the system.
 */
export const fitBounds = (saved: PlacedBounds | null, workAreas: readonly PlacedBounds[]): Bounds => {
  if (saved === null) return DEFAULT;
  const visible = (area: PlacedBounds): boolean =>
    Math.min(saved.x + saved.width, area.x + area.width) - Math.max(saved.x, area.x) >= GRIP.width &&
    saved.y >= area.y &&
    saved.y + GRIP.height <= area.y + area.height;
  const area = workAreas.find(visible);
  if (area === undefined) return DEFAULT;
  return {
    x: saved.x,
    y: saved.y,
    width: Math.max(SMALLEST.width, Math.min(saved.width, area.width)),
    height: Math.max(SMALLEST.height, Math.min(saved.height, area.height)),
  };
};

/** Null for anything unreadable: losing a window's place is no reason to trouble anyone. */
export const readBounds = async (path: string): Promise<PlacedBounds | null> => {
  try {
    const bounds = decodeJson(BoundsSchema, await readFile(path));
    return bounds.ok ? bounds.value : null;
  } catch {
    return null;
  }
};

/** Whole or not at all: written beside its place and renamed over it. */
export const writeBounds = async (path: string, { x, y, width, height }: PlacedBounds): Promise<void> => {
  await mkdir(dirname(path), { recursive: true });
  const temporary = `${path}.tmp`;
  {
    await using file = await open(temporary, "w", 0o600);
    await file.writeFile(encodeJson({ x, y, width, height }));
    await file.sync();
  }
  await rename(temporary, path);
};
