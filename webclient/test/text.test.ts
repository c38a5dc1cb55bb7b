import { describe, expect, it } from "vitest";
import { bytes, cut, onlyEmoji, pieces, safe, sendable, shown } from "../src/core/text.js";

describe("links", () => {
  const links = (text: string): string[] => pieces(text).flatMap((p) => (p.href === undefined ? [] : [p.text]));

  it.each([
    ["see https://example.com.", ["https://example.com"]],
    ["(https://example.com/a_(b)) and http://x.example?q=1#f!", ["https://example.com/a_(b)", "http://x.example?q=1#f"]],
    ["mailto:romeo@example.com, please", ["mailto:romeo@example.com"]],
    ["HTTPS://EXAMPLE.COM/Ä", ["HTTPS://EXAMPLE.COM/Ä"]],
    ["javascript:alert(1) data:text/html,x vbscript:x file:///etc", []],
    ["https://user@example.com https://a:b@example.com/", []],
    ["https:// http://? xhttps://example.com", []],
    ["https://example.com/\u202egpj.exe", ["https://example.com/"]],
    ['<a href="https://example.com">', ["https://example.com"]],
  ])("%s", (text, want) => {
    expect(links(text)).toEqual(want);
  });

  it("leaves the text what it was", () => {
    for (const text of ["", "a https://b.example/c, d", "https://b.example", "\u0000 https://x.y\nz"]) {
      expect(pieces(text).map((p) => p.text).join("")).toBe(text);
    }
  });

  it("takes its time on hostile text", () => {
    const start = process.cpuUsage(); // the time that others take does not count
    pieces("https://" + "a(".repeat(50_000));
    pieces("https://x.y/" + ")".repeat(50_000));
    pieces("https://x.y/" + "(".repeat(20_000) + ")".repeat(30_000));
    expect(process.cpuUsage(start).user / 1000).toBeLessThan(2000);
  });

  it("does not make a link of what is none", () => {
    expect(safe("mailto:a@b?bcc=c")).toBe("mailto:a@b?bcc=c");
    expect(safe("mailto:x")).toBeUndefined();
    expect(safe("ftp://example.com")).toBeUndefined();
  });
});

describe("texts", () => {
  it("has nothing that XML has not when it is sent", () => {
    expect(sendable("a\u0000b\u001bc\ufffe\ud800d\udc00e\r\nf\rg\th😀")).toBe("a\ufffdb\ufffdc\ufffd\ufffdd\ufffde\nf\ng\th😀");
  });

  it("shows what nothing shows, and does not turn the line around", () => {
    expect(shown("a\u0007b\u007fc\u202ed\u2066e\n\tf")).toBe("a\u2407b\u2421cde\n\tf");
  });

  it("is measured as it is on the wire", () => {
    expect(bytes("a&<>\"'ä😀")).toBe(1 + 5 + 4 + 4 + 6 + 6 + 2 + 4);
  });

  it.each([
    ["❤️", true],
    ["🇩🇪 👩🏽‍🚀 1️⃣", true],
    ["12", false],
    ["", false],
    ["no 🌹", false],
    ["🌹".repeat(40), false],
  ])("only emoji: %s", (text, want) => {
    expect(onlyEmoji(text)).toBe(want);
  });
});

describe("a name that is cut", () => {
  it("has no half of a pair and no space at its end", () => {
    expect(cut("  a \n b  ", 60)).toBe("a b");
    expect(cut(`${"x".repeat(59)}😀y`, 60)).toBe(`${"x".repeat(59)}😀`);
    expect(cut(`${"x".repeat(59)} y`, 60)).toBe("x".repeat(59));
  });
});
