/**
 * Runs in a page before anything else of it: writes down what the page shows, after every change of the document, so that
 * nothing that was there for a moment only is missed by a test that looks later.
 */
export const PERSON_WATCH = `globalThis.personWatch = (() => {
  const watch = { cards: [], states: {} };
  const lastOfCard = new Map();
  const round = (number) => Math.round(number * 10) / 10;
  const place = (rect, card) =>
    [rect.left - card.left, rect.top - card.top, rect.width, rect.height].map(round).join(" ");

  const lookAtCard = (element) => {
    const card = element.getBoundingClientRect();
    const bar = element.querySelector("[role=progressbar]");
    const parts = bar === null ? [] : [bar, ...bar.children];
    const sight = {
      name: element.querySelector("p").textContent,
      status: element.dataset.status,
      size: round(card.width) + " " + round(card.height),
      bar: parts.map((part) => place(part.getBoundingClientRect(), card)).join(", "),
    };
    const key = JSON.stringify(sight);
    if (lastOfCard.get(element.dataset.file) === key) return;
    lastOfCard.set(element.dataset.file, key);
    const headline = bar === null ? "" : bar.getAttribute("aria-valuetext").split(". ")[0];
    const shown = [...element.querySelectorAll("p, span")].map((line) => line.textContent.trim());
    watch.cards.push({ ...sight, headline: shown.includes(headline) ? headline : "" });
  };

  const lookAtMessage = (article) => {
    const state = article.querySelector("[role=img]")?.getAttribute("aria-label");
    const text = /^You, [^:]+:[^:]+: (.*)$/.exec(article.getAttribute("aria-label"))?.[1];
    if (state === undefined || text === undefined) return;
    watch.states[text] ??= [];
    if (watch.states[text].at(-1) !== state) watch.states[text].push(state);
  };

  const look = () => {
    for (const element of document.querySelectorAll("[data-file]")) lookAtCard(element);
    for (const element of document.querySelectorAll("article[aria-label]")) lookAtMessage(element);
  };
  const options = { subtree: true, childList: true, characterData: true, attributes: true };
  new MutationObserver(look).observe(document, options);

  watch.drop = async (name, sizeBytes) => {
    const bytes = new Uint8Array(sizeBytes);
    // The most that the generator gives at a time.
    for (let at = 0; at < sizeBytes; at += 65536) crypto.getRandomValues(bytes.subarray(at, at + 65536));
    const dataTransfer = new DataTransfer();
    dataTransfer.items.add(new File([bytes], name));
    const target = document.querySelector("textarea");
    for (const type of ["dragenter", "dragover", "drop"])
      target.dispatchEvent(new DragEvent(type, { dataTransfer, bubbles: true, cancelable: true }));
    const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
    return Array.from(hash, (byte) => byte.toString(16).padStart(2, "0")).join("");
  };

  document.addEventListener("securitypolicyviolation", (event) =>
    reportViolation(event.violatedDirective + " " + event.blockedURI + " " + event.sample));
  return watch;
})();`;
