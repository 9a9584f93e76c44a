import { assertNever } from "#shared/base/assert.ts";
import type { TransferStatus } from "../state/transfer-status.ts";

/** Which of the four steps is at work; null while nothing moves. */
export const activeStepOf = (status: TransferStatus): number | null => {
  switch (status.kind) {
    case "downloading":
      return 0;
    case "draining":
      return 1;
    case "assembling":
      return 2;
    case "verifying":
      return 3;
    case "shared":
    case "moved":
    case "revoked":
    case "closed":
    case "available":
    case "waiting":
    case "paused":
    case "complete":
    case "cancelled":
    case "failed":
      return null;
    default:
      return assertNever(status, "transfer status");
  }
};

export const toneOf = (status: TransferStatus): "accent" | "good" | "quiet" | "bad" => {
  if (status.kind === "complete") return "good";
  if (status.kind === "failed") return "bad";
  return status.kind === "paused" || status.kind === "waiting" ? "quiet" : "accent";
};
