/**
 * Takes out of a report what it must not hold, whoever put it there: a second line behind the rule that such things are
 * never logged. People and files become p1, f1 and so on, the same one each time, so that the report can still be followed.
 */
export interface Secrets {
  readonly userIds: readonly string[];
  readonly fileIds: readonly string[];
  /** Of people and files. */
  readonly names: readonly string[];
}

const USER_ID = /\b[a-z2-7]{32}\b/g;
const IPV4 = /\b\d{1,3}(?:\.\d{1,3}){3}\b/g;
const IPV6 = /\b(?:[0-9a-f]{1,4}:){3,7}[0-9a-f]{1,4}\b|\b[0-9a-f]{0,4}(?::[0-9a-f]{1,4}){0,6}::[0-9a-f:]*/gi;
const URL_HOST = /\b(wss?|https?):\/\/[^\s/"']+/g;
const PATH = /(?:\/(?:home|Users|root|tmp|var|mnt|media)\/|[A-Za-z]:\\)[^\s"']*/g;
/** Shorter names are ordinary words too often; they are not logged to begin with. */
const NAME_LENGTH_MIN = 3;

export const redactor = ({ userIds, fileIds, names }: Secrets): ((value: unknown) => unknown) => {
  const aliases = new Map<string, string>();
  for (const [index, id] of fileIds.entries()) aliases.set(id, `f${index + 1}`);
  const people = new Map(userIds.map((id, index) => [id, `p${index + 1}`]));
  const aliasOf = (id: string): string => {
    const alias = people.get(id) ?? `p${people.size + 1}`;
    people.set(id, alias);
    return alias;
  };
  const hidden = names.filter((name) => name.length >= NAME_LENGTH_MIN).sort((a, b) => b.length - a.length);
  const text = (value: string): string => {
    let result = value;
    for (const [id, alias] of aliases) result = result.replaceAll(id, alias);
    for (const name of hidden) result = result.replaceAll(name, "[name]");
    return result
      .replaceAll(URL_HOST, "$1://[address]")
      .replaceAll(PATH, "[path]")
      .replaceAll(IPV4, "[address]")
      .replaceAll(IPV6, "[address]")
      .replaceAll(USER_ID, aliasOf);
  };
  const redact = (value: unknown): unknown => {
    if (typeof value === "string") return text(value);
    if (Array.isArray(value)) return value.map(redact);
    if (value !== null && typeof value === "object")
      return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, redact(item)]));
    return value;
  };
  return redact;
};
