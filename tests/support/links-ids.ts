import * as v from "valibot";
import { type UserId, UserIdSchema } from "#shared/base/ids.ts";

/** A made-up user id that sorts by `order` (0 to 25). */
export const userIdOf = (order: number): UserId => v.parse(UserIdSchema, String.fromCharCode(97 + order).repeat(32));
