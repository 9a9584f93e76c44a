import type { Migration } from "../migrate.ts";
import { settingsSchema } from "./0001-settings.ts";
import { signalSchema } from "./0002-signal.ts";
import { contactsSchema } from "./0003-contacts.ts";
import { messagesSchema } from "./0004-messages.ts";
import { filesSchema } from "./0005-files.ts";
import { safetyNumbersSchema } from "./0006-safety-numbers.ts";
import { contactNetworkSchema } from "./0007-contact-network.ts";
import { sessionResetsSchema } from "./0008-session-resets.ts";
import { sharesSchema } from "./0009-shares.ts";
import { activitySchema } from "./0010-activity.ts";
import { foldersSchema } from "./0011-folders.ts";
import { transferPrioritySchema } from "./0012-transfer-priority.ts";
import { receiptsSchema } from "./0013-receipts.ts";
import { groupsSchema } from "./0014-groups.ts";
import { limitsSchema } from "./0015-limits.ts";
import { groupFilesSchema } from "./0016-group-files.ts";
import { replacedFilesSchema } from "./0017-replaced-files.ts";
import { groupNewsSchema } from "./0018-group-news.ts";
import { groupPlacesSchema } from "./0019-group-places.ts";
import { receiptTimesSchema } from "./0020-receipt-times.ts";
import { groupPostsSchema } from "./0021-group-posts.ts";
import { groupGoodbyesSchema } from "./0022-group-goodbyes.ts";

/** Everything in app.db, in order of application. */
export const appMigrations: readonly Migration[] = [
  settingsSchema,
  signalSchema,
  contactsSchema,
  messagesSchema,
  filesSchema,
  safetyNumbersSchema,
  contactNetworkSchema,
  sessionResetsSchema,
  sharesSchema,
  activitySchema,
  foldersSchema,
  transferPrioritySchema,
  receiptsSchema,
  groupsSchema,
  limitsSchema,
  groupFilesSchema,
  replacedFilesSchema,
  groupNewsSchema,
  groupPlacesSchema,
  receiptTimesSchema,
  groupPostsSchema,
  groupGoodbyesSchema,
];
