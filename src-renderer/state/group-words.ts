import { assertNever } from "#shared/base/assert.ts";
import type { GroupEventView, GroupRoleView, GroupView } from "#shared/ipc/views.ts";

/** A group's id is a user's with a letter more before it. */
export const isGroupId = (id: string): boolean => /^g[a-z2-7]{32}$/.test(id);

type Member = GroupView["members"][number];

export const roleWords: Record<GroupRoleView, string> = { owner: "Owner", admin: "Admin", member: "Member" };

/** Ourselves have no name there. */
export const memberName = ({ name }: Pick<Member, "name">): string => (name === "" ? "You" : name);

const RANK: Record<GroupRoleView, number> = { owner: 0, admin: 1, member: 2 };

/** The owner first, then admins, then everybody else by name. */
export const membersInOrder = ({ members }: GroupView): Member[] =>
  [...members].sort((a, b) => RANK[a.role] - RANK[b.role] || memberName(a).localeCompare(memberName(b)));

/** For the line under a group's name. */
export const memberNames = (group: GroupView): string => {
  const others = membersInOrder(group).filter(({ name }) => name !== "");
  return others.length === 0 ? "Only you" : ["You", ...others.map(({ name }) => name)].join(", ");
};

/** What one may do with another member, by the rules of the group. */
export const powersOver = ({ role }: GroupView, member: Member): { remove: boolean; changeRole: boolean } => {
  const isOther = member.name !== "" && member.role !== "owner";
  return {
    remove: isOther && (role === "owner" || (role === "admin" && member.role === "member")),
    changeRole: isOther && role === "owner",
  };
};

/** Names of a line; so many that the rest is only counted. */
const NAMES_MAX = 6;

const listOf = (people: GroupEventView["people"]): string => {
  // An empty name comes first.
  const inOrder = people.map(({ name }) => name).sort((a, b) => a.localeCompare(b));
  const names = inOrder.map((name) => (name === "" ? "you" : name));
  const more = names.length - NAMES_MAX;
  const shown = more > 1 ? [...names.slice(0, NAMES_MAX), `${more} others`] : names;
  const last = shown.pop() ?? "";
  return shown.length === 0 ? last : `${shown.join(", ")} and ${last}`;
};

/** What was done to a group, as the line among its messages says it. */
export const eventWords = ({ kind, actor, people, name }: GroupEventView): string => {
  const who = memberName(actor);
  const whom = listOf(people);
  switch (kind) {
    case "create":
      return `${who} created the group \u201c${name}\u201d${people.length === 0 ? "" : ` with ${whom}`}`;
    case "rename":
      return `${who} renamed the group to \u201c${name}\u201d`;
    case "add":
      return `${who} added ${whom}`;
    case "remove":
      return `${who} removed ${whom}`;
    case "leave":
      return `${who} left the group`;
    case "admin":
      return `${who} made ${whom} ${people.length === 1 ? "an admin" : "admins"}`;
    case "member":
      return `${who} made ${whom} ${people.length === 1 ? "a member" : "members"} again`;
    default:
      return assertNever(kind, "what was done to a group");
  }
};
