import { INVITE_LINK_LENGTH_MAX } from "#shared/base/limits.ts";
import { decodeInviteLink } from "#shared/wire/invite.ts";

/**
 * `weir://` links arrive from any program on the machine, as an argument or an event. Only a well-formed invitation
 * means anything, and it only fills in the pairing dialog: nothing is accepted without the person.
 */
export const DEEP_LINK_SCHEME = "weir";

/** The invitation to show, or null for anything else. */
export const inviteOf = (link: string): string | null => {
  if (link.length > INVITE_LINK_LENGTH_MAX) return null;
  return decodeInviteLink(link).ok ? link : null;
};

/** Systems append the link as an argument of its own; the last valid one counts. Never an option, never a path. */
export const inviteInArguments = (argv: readonly string[]): string | null => {
  for (const argument of argv.toReversed()) {
    const invite = inviteOf(argument);
    if (invite !== null) return invite;
  }
  return null;
};
