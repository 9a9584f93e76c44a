/**
 * Why a connection was not made, or ended, in words. The codes are those of the main process; what is not among them is
 * told as such, never shown as it came.
 */
const WORDS: Readonly<Record<string, string>> = {
  bad_description: "What the two sides told each other about their connection could not be read",
  bad_frame: "Something arrived that is not of Weir's protocol",
  busy: "Too many connections at once",
  closed: "Disconnected by you",
  connect_timeout: "No way was found in time",
  connection_closed: "The connection ended without a goodbye",
  control_flood: "The other side sent more than is allowed",
  credit_exceeded: "The other side sent more than is allowed",
  disabled: "Connections were switched off here",
  fingerprint_mismatch: "The encryption keys did not match: somebody may have stood in between",
  handshake_timeout: "The other side did not prove its identity in time",
  network_changed: "This computer's network changed",
  no_answer: "No answer from the other side",
  no_better_path: "No better way than the one in use",
  no_path_allowed: "Your choice for this contact allows no way",
  no_relay: "The meeting server offers no relay",
  not_needed: "Another way was faster",
  not_wanted: "Disconnected by you",
  peer_busy: "The other side has too many connections",
  peer_closed: "The other side said goodbye",
  peer_connect_timeout: "The other side found no way in time",
  peer_dialled: "The other side asked for a new connection",
  peer_disabled: "The other side switched its connections off",
  peer_handshake_timeout: "The other side waited too long for a proof of identity",
  peer_no_answer: "The other side got no answer",
  peer_no_better_path: "The other side found no better way than the one in use",
  peer_no_relay: "The other side cannot use the meeting server's relay",
  peer_not_wanted: "The other side does not want a connection at the moment",
  peer_offline: "The other side is offline",
  peer_relay_only: "The other side allows the meeting server's relay only",
  peer_relay_was_faster: "The meeting server's relay was faster",
  peer_silent: "Nothing came from the other side any more",
  peer_stalled: "The other side took nothing any more",
  peer_unreachable: "The other side found no way to this computer",
  policy_changed: "You chose another network policy",
  receive_overflow: "More arrived than could be handled",
  reconnect: "A new connection was asked for",
  relay_failed: "The meeting server's relay failed",
  relay_only: "Your choice for this contact allows the meeting server's relay only",
  relay_was_faster: "The meeting server's relay was faster",
  replaced: "Another connection took its place",
  rtc_failed: "This computer could not open a connection",
  send_failed: "Nothing could be sent any more",
  signaling_failed: "The meeting server could not pass on the invitation to connect",
  too_many_links: "Too many connections at once",
  unexpected_channels: "The other side broke Weir's protocol",
  unexpected_message: "The other side broke Weir's protocol",
  unreachable: "No packet got through between the two networks",
  wrong_generation: "An answer to an older attempt came",
  wrong_proof: "Whoever answered could not prove to be this person",
  wrong_user: "Somebody else answered",
  wrong_version: "The two programs are of versions that do not understand each other",
};

export const isKnownReason = (reason: string): boolean => Object.hasOwn(WORDS, reason);

/** Without a full stop. */
export const reasonWords = (reason: string): string => WORDS[reason] ?? "It ended for another reason";

/** Of these only the person itself can say more: the wrong one answered, or something stood in between. */
export const IDENTITY_REASONS: ReadonlySet<string> = new Set(["fingerprint_mismatch", "wrong_proof", "wrong_user"]);
