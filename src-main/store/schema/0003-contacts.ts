/**
 * Tables of contacts in app.db.
 *
 * - `contacts.before_block` keeps what the relation was before blocking. `invite_id` is the last invitation of theirs
 *   that we accepted. The two nonces are those of a pairing by code; the safety words follow from them and the keys.
 * - `awaited_reveals`: we answered a code and wait for the inviter to open the commitment.
 * - `invites`: ours; kept after they were used or ran out, until no late request can refer to them any more.
 */
export const contactsSchema = {
  name: "0003-contacts",
  sql: `
    CREATE TABLE contacts (
      user_id TEXT PRIMARY KEY,
      account_key BLOB NOT NULL,
      name TEXT NOT NULL,
      relation TEXT NOT NULL CHECK (relation IN ('outgoing', 'incoming', 'accepted', 'blocked')),
      before_block TEXT CHECK (before_block IN ('outgoing', 'incoming', 'accepted')),
      trust TEXT NOT NULL CHECK (trust IN ('unverified', 'verified', 'changed')),
      invite_id BLOB,
      words_invite_id BLOB,
      inviter_nonce BLOB,
      requester_nonce BLOB,
      added_at INTEGER NOT NULL,
      CHECK ((relation = 'blocked') = (before_block IS NOT NULL))
    ) STRICT;

    CREATE TABLE awaited_reveals (
      user_id TEXT NOT NULL REFERENCES contacts (user_id) ON DELETE CASCADE,
      invite_id BLOB NOT NULL,
      commitment BLOB NOT NULL,
      nonce BLOB NOT NULL,
      PRIMARY KEY (user_id, invite_id)
    ) STRICT;

    CREATE TABLE invites (
      invite_id BLOB PRIMARY KEY,
      secret BLOB NOT NULL,
      nonce BLOB NOT NULL,
      expires_at INTEGER NOT NULL,
      used_by TEXT
    ) STRICT;
  `,
};
