/** What a test measured, for the log: figures depend on the machine and are never asserted here. */
export class Figures {
  readonly #lines: string[] = [];

  add(what: string, figures: Readonly<Record<string, string | number | null>>): void {
    const words = Object.entries(figures).map(([name, value]) => `${name} ${value ?? "-"}`);
    this.#lines.push(`  ${what}: ${words.join(", ")}`);
  }

  print(title: string): void {
    if (this.#lines.length > 0) process.stderr.write(`${[title, ...this.#lines].join("\n")}\n`);
  }
}
