import { isUiUrl, type UiOrigin } from "./url-policy.ts";

/** What Electron says about a file that a page wants to save. */
export interface PageDownload {
  readonly url: string;
  readonly filename: string;
}

const REPORT_NAME = /^[a-z0-9][a-z0-9-]{0,63}\.json$/;

/**
 * The page saves one kind of file by itself: a report that it made, as JSON. It must be a blob of our own page, and its
 * name is shown in the save dialog as it is, so it must be a plain one: a page that was taken over shall not be able to
 * offer a program under a trusted name. What people send each other never comes this way.
 */
export const downloadAllowed = ({ url, filename }: PageDownload, ui: UiOrigin): boolean =>
  url.startsWith("blob:") && isUiUrl(url.slice("blob:".length), ui) && REPORT_NAME.test(filename);
