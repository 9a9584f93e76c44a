import { type Bytes, bytesEqual } from "#shared/base/bytes.ts";
import type { Env, TimeMs } from "#shared/base/env.ts";
import type { UserId } from "#shared/base/ids.ts";
import { UserIdSchema } from "#shared/base/ids.ts";
import {
  CODES_KEPT_MAX,
  CONTACTS_MAX,
  INVITE_LINK_LENGTH_MAX,
  INVITE_TTL_MS,
  INVITES_OPEN_MAX,
  MAILBOX_TTL_MS,
} from "#shared/base/limits.ts";
import { err, fail, ok, type Result } from "#shared/base/result.ts";
import type { InviteView } from "#shared/ipc/views.ts";
import type { ContentOf } from "#shared/wire/content.ts";
import { decodeInviteLink, encodeInviteLink, type InviteLink, parseInviteCode } from "#shared/wire/invite.ts";
import { decodeValue } from "#shared/wire/json.ts";
import { userIdOf } from "../crypto/identity.ts";
import type { Sessions } from "../crypto/sessions.ts";
import type { Signaling } from "../signaling/signaling.ts";
import type { ContactsTable, InviteRecord } from "../store/contacts.ts";
import { commitTo, inviteMac, isInviteMac } from "./pairing.ts";

const INVITE_ID_BYTES = 16;
const SECRET_BYTES = 32;

/** Somebody whose invitation we use: who it is, and how we prove that we have it. */
export interface Introduction {
  readonly peer: UserId;
  readonly accountKey: Bytes;
  readonly inviteId: Bytes;
  /** Only a link names the identity key; a code comes from the server, which is not believed. */
  readonly via: { kind: "link"; secret: Bytes; identityKey: Bytes } | { kind: "code"; commitment: Bytes };
}

interface InvitesDeps {
  readonly env: Env;
  readonly table: ContactsTable;
  readonly self: { readonly userId: UserId; readonly accountKey: Bytes };
  readonly sessions: Sessions;
  readonly signaling: Signaling;
}

type Proof = ContentOf<"contactRequest">["proof"];

/** Makes invitations, reads those of others, and checks who answers ours. */
export class Invites {
  readonly #deps: InvitesDeps;
  /** Codes of others that were resolved, until they run out. */
  readonly #resolved = new Map<string, { readonly introduction: Introduction; readonly untilMs: TimeMs }>();

  constructor(deps: InvitesDeps) {
    this.#deps = deps;
  }

  async create(): Promise<Result<InviteView>> {
    const { env, table, self, sessions, signaling } = this.#deps;
    const nowMs = env.clock.now();
    // A request may lie in our mailbox long after the invitation ran out; only then can its row go.
    table.pruneInvites(nowMs - MAILBOX_TTL_MS);
    if (table.openInvites(nowMs) >= INVITES_OPEN_MAX)
      return fail("too_many_invites", "Too many invitations are open. Wait a few minutes until one has run out.");
    const serverUrl = signaling.state.url;
    const inviteId = env.random.bytes(INVITE_ID_BYTES);
    const secret = env.random.bytes(SECRET_BYTES);
    const nonce = env.random.bytes(SECRET_BYTES);
    const link = encodeInviteLink({
      accountKey: self.accountKey,
      identityKey: sessions.localIdentityKey,
      inviteId,
      secret,
      serverUrl,
    });
    if (link.length > INVITE_LINK_LENGTH_MAX)
      return fail(
        "server_url_too_long",
        "The address of your server is too long for an invitation. Use a shorter one.",
      );
    // Before the server knows of it: a code that lives at the server must never lead to nothing here.
    table.addInvite({ inviteId, secret, nonce, expiresAtMs: nowMs + INVITE_TTL_MS });
    const created = await signaling.request("invites.create", { inviteId, commitment: commitTo(nonce) });
    if (!created.ok || signaling.state.url !== serverUrl) {
      // Nobody was shown the code or the link, so nobody can use it.
      table.removeInvite(inviteId);
      if (!created.ok) return created;
      return fail("server_changed", "The server was changed meanwhile. Make the invitation again.");
    }
    const { code, expiresAtMs } = created.value;
    table.setInviteExpiry(inviteId, expiresAtMs);
    return ok({ link, code, expiresAtMs });
  }

  /** Ends those that are open: nobody can answer them any more. */
  end(): void {
    this.#deps.table.endInvites(this.#deps.env.clock.now());
    this.#resolved.clear();
  }

  /** The person is no contact any more: an old code of theirs must not make them one again. */
  forget(peer: UserId): void {
    for (const [code, { introduction }] of this.#resolved) if (introduction.peer === peer) this.#resolved.delete(code);
  }

  /** Reads a link or resolves a code. The person behind it is not a contact yet. */
  async introduce(text: string): Promise<Result<Introduction>> {
    const introduction = await this.#read(text.trim());
    if (!introduction.ok) return introduction;
    if (introduction.value.peer === this.#deps.self.userId)
      return fail("own_invite", "This is your own invitation. Send it to the person you want to talk to.");
    const { table } = this.#deps;
    const contacts = table.count("accepted") + table.count("outgoing");
    if (contacts >= CONTACTS_MAX && table.get(introduction.value.peer) === null)
      return fail("too_many_contacts", "You have as many contacts as Weir can hold. Remove one first.");
    return introduction;
  }

  async #read(text: string): Promise<Result<Introduction>> {
    const code = parseInviteCode(text);
    if (code !== null) return this.#resolve(code);
    const link = decodeInviteLink(text);
    if (!link.ok) return link;
    return this.#fromLink(link.value);
  }

  #fromLink(link: InviteLink): Result<Introduction> {
    if (!sameServer(link.serverUrl, this.#deps.signaling.state.url)) {
      return err({
        type: "other_server",
        message: `This invitation belongs to the server ${link.serverUrl}. Switch to it in the settings to accept.`,
        serverUrl: link.serverUrl,
      });
    }
    const accountKey = new Uint8Array(link.accountKey);
    return ok({
      peer: userIdOf(accountKey),
      accountKey,
      inviteId: new Uint8Array(link.inviteId),
      via: { kind: "link", secret: new Uint8Array(link.secret), identityKey: new Uint8Array(link.identityKey) },
    });
  }

  /** A code is used up by the first answer, so that is kept: what fails after it can be tried again with the same code. */
  async #resolve(code: string): Promise<Result<Introduction>> {
    const nowMs = this.#deps.env.clock.now();
    for (const [other, { untilMs }] of this.#resolved) if (untilMs <= nowMs) this.#resolved.delete(other);
    const known = this.#resolved.get(code);
    if (known !== undefined) return ok(known.introduction);
    const { url } = this.#deps.signaling.state;
    const introduction = await this.#ask(code);
    if (introduction.ok && this.#deps.signaling.state.url === url && this.#resolved.size < CODES_KEPT_MAX)
      this.#resolved.set(code, { introduction: introduction.value, untilMs: nowMs + INVITE_TTL_MS });
    return introduction;
  }

  async #ask(code: string): Promise<Result<Introduction>> {
    const resolved = await this.#deps.signaling.request("invites.resolve", { code });
    if (!resolved.ok) return resolved;
    const { inviteId, accountKey, commitment, userId } = resolved.value;
    const peer = decodeValue(UserIdSchema, userId);
    const wellFormed = inviteId.length === INVITE_ID_BYTES && accountKey.length === 32 && commitment.length === 32;
    if (!peer.ok || !wellFormed || userIdOf(accountKey) !== peer.value)
      return fail("pairing_tampered", "The server's answer does not fit together. Use an invitation link instead.");
    return ok({ peer: peer.value, accountKey, inviteId, via: { kind: "code", commitment } });
  }

  /** The proof for a request, and for a code what the inviter's reveal must be checked against. */
  requestFor(introduction: Introduction): { proof: Proof; awaited: { commitment: Bytes; nonce: Bytes } | null } {
    const { inviteId, via, peer } = introduction;
    if (via.kind === "link") {
      const mac = inviteMac(via.secret, peer, this.#deps.self.userId);
      return { proof: { via: "link", mac, inviteId }, awaited: null };
    }
    const nonce = this.#deps.env.random.bytes(SECRET_BYTES);
    return { proof: { via: "code", inviteId, nonce }, awaited: { commitment: via.commitment, nonce } };
  }

  /**
   * Uses up the invitation that a request refers to; null when there is none for it: unknown, run out, used before, or
   * the proof or the account key does not fit. Inside the transaction of the request.
   */
  claim(from: UserId, request: ContentOf<"contactRequest">, arrivedAtMs: TimeMs): InviteRecord | null {
    const { table, self } = this.#deps;
    const known = table.get(from);
    if (userIdOf(request.accountKey) !== from) return null;
    if (known !== null && !bytesEqual(known.accountKey, request.accountKey)) return null;
    const invite = table.invite(request.proof.inviteId);
    if (invite === null || invite.expiresAtMs < arrivedAtMs) return null;
    if (request.proof.via === "link" && !isInviteMac(request.proof.mac, invite.secret, self.userId, from)) return null;
    return table.useInvite(invite.inviteId, from) ? invite : null;
  }
}

/** The same server written in two ways ("ws://HOST:80/" and "ws://host") is the same server. */
export const sameServer = (a: string, b: string): boolean => {
  const left = canonicalUrl(a);
  return left !== null && left === canonicalUrl(b);
};

const canonicalUrl = (text: string): string | null => {
  if (!URL.canParse(text)) return null;
  const url = new URL(text);
  return `${url.protocol}//${url.host}${url.pathname.replace(/\/+$/, "")}`;
};
