/** What a file is, judged by its name: only for choosing an icon, never for deciding what may be opened. */
export type FileKind = "archive" | "audio" | "code" | "document" | "image" | "other" | "video";

const EXTENSIONS_BY_KIND: Record<Exclude<FileKind, "other">, readonly string[]> = {
  archive: ["zip", "gz", "xz", "zst", "bz2", "7z", "rar", "tar", "tgz", "iso", "dmg", "deb", "rpm", "appimage", "img"],
  audio: ["mp3", "flac", "ogg", "opus", "wav", "m4a", "aac", "aiff"],
  code: [
    "ts",
    "js",
    "json",
    "py",
    "rs",
    "go",
    "c",
    "h",
    "cpp",
    "java",
    "sh",
    "html",
    "css",
    "svelte",
    "toml",
    "yaml",
    "yml",
    "sql",
  ],
  document: [
    "pdf",
    "txt",
    "md",
    "doc",
    "docx",
    "odt",
    "rtf",
    "xls",
    "xlsx",
    "ods",
    "csv",
    "ppt",
    "pptx",
    "odp",
    "epub",
  ],
  image: ["png", "jpg", "jpeg", "gif", "webp", "avif", "svg", "heic", "tif", "tiff", "raw", "cr2", "dng", "psd", "bmp"],
  video: ["mp4", "mkv", "mov", "webm", "avi", "m4v", "mxf", "braw"],
};

const kindByExtension = new Map<string, FileKind>(
  Object.entries(EXTENSIONS_BY_KIND).flatMap(([kind, extensions]) =>
    extensions.map((extension): [string, FileKind] => [extension, kind as FileKind]),
  ),
);

export const fileKindOf = (name: string): FileKind => {
  const dot = name.lastIndexOf(".");
  return (dot > 0 ? kindByExtension.get(name.slice(dot + 1).toLowerCase()) : undefined) ?? "other";
};
