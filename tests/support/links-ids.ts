import * as v from "valibot";
import { type UserId, UserIdSchema } from "#shared/base/ids.ts";

/** A made-up user id that sorts by `order` (0 to 25). */
export const userIdOf = (order: number): UserId => v.parse(UserIdSchema, String.fromCharCode(97 + order).repeat(32));

/** A made-up user id that starts with `name`, with digits as letters. */
export const userIdFrom = (name: string): UserId =>
  v.parse(UserIdSchema, name.replace(/\d/g, (digit) => String.fromCharCode(99 + Number(digit))).padEnd(32, "b"));
