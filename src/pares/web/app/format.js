/** Numbers, sizes and times as people read them. */

const LOCALE = navigator.language;
const numbers = new Intl.NumberFormat(LOCALE);
const three = new Intl.NumberFormat(LOCALE, { maximumSignificantDigits: 3 });
const one = new Intl.NumberFormat(LOCALE, { maximumFractionDigits: 1 });
const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
const clock = new Intl.DateTimeFormat(LOCALE, { dateStyle: "medium", timeStyle: "short" });
const plurals = new Intl.PluralRules("en");

/** @param {number} n */
export const count = (n) => numbers.format(n);

/** @param {number} n */
export const decimal = (n) => one.format(n);

/** Which plural form a number takes. @param {number} n */
export const plural = (n) => plurals.select(n);

/** @param {number} value @param {string[]} units @param {number} step */
function scaled(value, units, step) {
  let i = 0;
  while (value >= step && i < units.length - 1) {
    value /= step;
    i += 1;
  }
  return `${(value >= 100 ? numbers : three).format(value >= 100 ? Math.round(value) : value)} ${units[i]}`.trimEnd();
}

/** Bytes with a decimal unit: 98.1 MB. @param {number} n */
export const bytes = (n) => scaled(n, ["B", "kB", "MB", "GB", "TB"], 1000);

/** A count of parameters: 135 M, 1.71 B. @param {number} n */
export const parameters = (n) => scaled(n, ["", "k", "M", "B", "T"], 1000);

/** A share of one as a whole percentage. @param {number} share */
export const percent = (share) => `${Math.floor(share * 100)} %`;

/** @param {number} seconds */
export function duration(seconds) {
  if (seconds < 10) return `${one.format(seconds)} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return minutes < 10 ? `${minutes} min ${Math.round(seconds % 60)} s` : `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} days`;
}

/** "2 minutes ago", "in 4 minutes". @param {string} time ISO 8601 */
export function ago(time) {
  const seconds = (Date.parse(time) - Date.now()) / 1000;
  /** @type {[Intl.RelativeTimeFormatUnit, number][]} */
  const units = [["year", 31536000], ["month", 2592000], ["day", 86400], ["hour", 3600], ["minute", 60]];
  for (const [unit, size] of units) {
    if (Math.abs(seconds) >= size) return relative.format(Math.trunc(seconds / size), unit);
  }
  return relative.format(0, "minute").replace("this minute", "just now");
}

/** @param {string} time ISO 8601 */
export const moment = (time) => clock.format(new Date(time));
