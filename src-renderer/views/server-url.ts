/** Why a person's text cannot be a server address, in words; null when it can. The main process checks again. */
export const serverUrlProblem = (text: string): string | null => {
  const url = text.trim();
  if (url === "") return "Enter the address of the server.";
  if (!/^wss?:\/\//i.test(url)) return "The address must start with wss:// or ws://.";
  if (!URL.canParse(url)) return "This is not a complete address. Example: wss://meet.example.org";
  return null;
};
