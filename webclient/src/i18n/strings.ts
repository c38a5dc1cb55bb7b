// The texts of the widget: English and German are built in, a page brings others as a table with the same keys.

import de from "./de.json";
import en from "./en.json";

export type Key = keyof typeof en;
export type Table = Partial<Record<Key, string>>;

const tables: Record<string, Table> = { en, de };

// known are the keys that a table may have.
export const known = Object.keys(en) as Key[];

export type Texts = (key: Key, values?: Record<string, string | number>) => string;

// texts are those of a language, of a page's own table where that has them, and English for what neither has.
export function texts(language: string, own: Table = {}): Texts {
  const table = tables[language.toLowerCase().split(/[-_]/)[0] ?? ""] ?? {};
  return (key, values = {}) => {
    const text = typeof own[key] === "string" ? own[key] : (table[key] ?? en[key]);
    return text.replace(/\{(\w+)\}/g, (all, name: string) => (name in values ? String(values[name]) : all));
  };
}

const roomKeys: Partial<Record<Key, Key>> = { delivered: "roomDelivered", history: "roomHistory" };

// inRoom are the texts for a room, where it has others.
export function inRoom(words: Texts): Texts {
  return (key, values) => words(roomKeys[key] ?? key, values);
}
