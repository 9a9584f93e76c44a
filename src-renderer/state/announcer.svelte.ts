/**
 * What screen readers are told without moving the focus. Two regions take turns, because a region whose text
 * is set to the same words again stays silent.
 */
export class Announcer {
  texts = $state.raw<readonly [string, string]>(["", ""]);
  #turn: 0 | 1 = 0;

  say(text: string): void {
    this.#turn = this.#turn === 0 ? 1 : 0;
    this.texts = this.#turn === 0 ? [text, ""] : ["", text];
  }
}
