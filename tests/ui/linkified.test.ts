import { render, screen } from "@testing-library/svelte";
import { describe, expect, it } from "vitest";
import Linkified from "../../src-renderer/ui/Linkified.svelte";

describe("text with links", () => {
  it("links web addresses and leaves the text as it is", () => {
    const { container } = render(Linkified, { text: "see https://example.org/a?b=1, or example.org\nnext" });
    const links = screen.getAllByRole("link");
    expect(links.map((link) => link.getAttribute("href"))).toEqual([
      "https://example.org/a?b=1",
      "https://example.org",
    ]);
    expect(links.every((link) => link.getAttribute("rel") === "noopener noreferrer")).toBe(true);
    expect(container.textContent?.trim()).toBe("see https://example.org/a?b=1, or example.org\nnext");
  });

  it.each([
    "javascript:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "file:///etc/passwd",
    "<img src=x onerror=alert(1)>",
  ])("never makes a link or markup of %s", (text) => {
    const { container } = render(Linkified, { text });
    expect(screen.queryAllByRole("link")).toEqual([]);
    expect(container.querySelector("img, script")).toBeNull();
    expect(container.textContent).toContain(text);
  });
});
