// The number of unread messages of all widgets of the page, in its title.

const counts = new Map<object, number>();
let written = "";

export function unreadInTitle(who: object, count: number): void {
  if (count === 0) counts.delete(who);
  else counts.set(who, count);
  let all = 0;
  for (const n of counts.values()) all += n;
  // What the page itself has made of its title meanwhile is kept.
  const own = written !== "" && document.title.startsWith(written) ? document.title.slice(written.length) : document.title;
  written = all === 0 ? "" : `(${all}) `;
  if (document.title !== written + own) document.title = written + own;
}
