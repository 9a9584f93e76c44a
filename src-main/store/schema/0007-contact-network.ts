/**
 * Network policies in app.db: which ways a link to a contact may take (NetworkPolicy in src-shared/ipc/views.ts), and
 * whether we accepted the contact ourselves. Without a row the policy is `direct`. Gone with the contact.
 */
export const contactNetworkSchema = {
  name: "0007-contact-network",
  sql: `
    CREATE TABLE contact_network (
      user_id TEXT PRIMARY KEY REFERENCES contacts (user_id) ON DELETE CASCADE,
      policy TEXT NOT NULL DEFAULT 'direct' CHECK (policy IN ('direct', 'afterAccept', 'relay', 'lan')),
      accepted_by_me INTEGER NOT NULL DEFAULT 0 CHECK (accepted_by_me IN (0, 1))
    ) STRICT;
  `,
};
