import { open, realpath } from "node:fs/promises";
import { extname, join, sep } from "node:path";
import type { Bytes } from "#shared/base/bytes.ts";
import { fail, ok, type Result } from "#shared/base/result.ts";

/**
 * Serves the built renderer to both hosts. A request can only reach a regular file whose real path, links resolved, lies
 * inside the root; anything else is `not_found`, so that an answer tells nothing about the disk outside.
 */
export interface StaticFile {
  readonly body: Bytes;
  readonly contentType: string;
  readonly cacheControl: string;
}
export type StaticError = { type: "not_found" | "not_built"; message: string };

const CONTENT_TYPES: Readonly<Record<string, string>> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".mjs": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".json": "application/json; charset=utf-8",
  ".webmanifest": "application/manifest+json; charset=utf-8",
  ".svg": "image/svg+xml",
  ".png": "image/png",
  ".jpg": "image/jpeg",
  ".webp": "image/webp",
  ".ico": "image/x-icon",
  ".woff2": "font/woff2",
  ".wasm": "application/wasm",
  ".txt": "text/plain; charset=utf-8",
};

/** Vite puts a hash of the content into these names, so a copy never goes stale. */
const HASHED_ASSET = /^assets\/[^/]+-[A-Za-z0-9_-]{8,}\.[a-z0-9]+$/;
const PATHNAME_LENGTH_MAX = 512;

/**
 * The relative path that a URL's pathname names, or null when it is not a plain one: segments of letters, digits and
 * `._-@ ` only, none of them hidden or dots alone. Encoded characters are decoded exactly once.
 */
export const staticPath = (pathname: string): string | null => {
  if (pathname.length > PATHNAME_LENGTH_MAX || !pathname.startsWith("/")) return null;
  let decoded: string;
  try {
    decoded = decodeURIComponent(pathname);
  } catch {
    return null; // a lone % or malformed UTF-8: such a file does not exist
  }
  if (decoded === "/") return "index.html";
  const segments = decoded.slice(1).split("/");
  const plain = segments.every(
    (segment) => /^[A-Za-z0-9_@-][A-Za-z0-9 ._@-]*$/.test(segment) && !segment.endsWith("."),
  );
  return plain ? segments.join("/") : null;
};

/** True when `path` lies inside `root`; both absolute and without links. A prefix alone would accept "/root-evil". */
export const isInside = (root: string, path: string): boolean => {
  const prefix = root.endsWith(sep) ? root : root + sep;
  return path.startsWith(prefix);
};

export const readStatic = async (root: string, pathname: string): Promise<Result<StaticFile, StaticError>> => {
  const relative = staticPath(pathname);
  if (relative === null) return notFound();
  const contentType = CONTENT_TYPES[extname(relative).toLowerCase()];
  if (contentType === undefined) return notFound();
  try {
    const realRoot = await realpath(root);
    const real = await realpath(join(realRoot, relative));
    if (!isInside(realRoot, real)) return notFound();
    await using file = await open(real, "r");
    if (!(await file.stat()).isFile()) return notFound();
    const cacheControl = HASHED_ASSET.test(relative) ? "public, max-age=31536000, immutable" : "no-cache";
    return ok({ body: new Uint8Array(await file.readFile()), contentType, cacheControl });
  } catch {
    // ENOENT, ENOTDIR, EACCES, ELOOP: for the caller the same.
    return relative === "index.html"
      ? fail("not_built", "The window's files are missing. Run `npm run build` in Weir's folder, then reload.")
      : notFound();
  }
};

const notFound = () => fail("not_found", "There is no such file.");
