/** A folder that was dropped or picked in the page. */
export interface DroppedFolder {
  readonly name: string;
  /** The folder itself; only the desktop window can say where it lies. */
  readonly entry: File | null;
  /** What is in it, by path. In the browser the page reads it. */
  readonly files: () => Promise<FolderFile[]>;
}

export interface FolderFile {
  readonly path: string;
  readonly file: File;
}

/** Must be called before the drop event ends: afterwards its items are gone. */
export const foldersIn = (items: readonly DataTransferItem[]): DroppedFolder[] =>
  items.flatMap((item) => {
    const entry = item.webkitGetAsEntry();
    if (!isDirectory(entry)) return [];
    return [{ name: entry.name, entry: item.getAsFile(), files: () => filesBelow(entry, "") }];
  });

/** What `<input webkitdirectory>` gives: the files of one folder, each with its path from there. */
export const folderOfPicked = (files: readonly File[]): DroppedFolder | null => {
  const [name] = files[0]?.webkitRelativePath.split("/") ?? [];
  if (name === undefined || name === "") return null;
  const inside = files.map((file) => ({ path: file.webkitRelativePath.slice(name.length + 1), file }));
  return { name, entry: null, files: () => Promise.resolve(inside) };
};

const isDirectory = (entry: FileSystemEntry | null): entry is FileSystemDirectoryEntry => entry?.isDirectory === true;
const isFile = (entry: FileSystemEntry): entry is FileSystemFileEntry => entry.isFile;

const filesBelow = async (folder: FileSystemDirectoryEntry, prefix: string): Promise<FolderFile[]> => {
  const found: FolderFile[] = [];
  const reader = folder.createReader();
  // A reader gives some at a time, and nothing at the end.
  for (;;) {
    const entries = await new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject));
    if (entries.length === 0) return found;
    for (const entry of entries) {
      const path = `${prefix}${entry.name}`;
      if (isDirectory(entry)) found.push(...(await filesBelow(entry, `${path}/`)));
      else if (isFile(entry))
        found.push({ path, file: await new Promise<File>((resolve, reject) => entry.file(resolve, reject)) });
    }
  }
};
