import type { GroupRoleView, GroupView } from "#shared/ipc/views.ts";

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
