"use strict";
// Sorts and filters tables. Without it they stand as they are, highest score first.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0], rows = [...body.rows], heads = [...table.tHead.rows[0].cells];
  const value = (row, i) => row.cells[i].dataset.sort ?? row.cells[i].textContent.trim();
  const number = (text) => { const x = parseFloat(text.replaceAll(",", "")); return Number.isNaN(x) ? null : x; };
  const order = (a, b) => {
    const [x, y] = [number(a), number(b)];
    if (x !== null && y !== null) return x - y;
    return a.localeCompare(b);
  };
  const missing = (text) => text === "" || text === "n/a";
  heads.forEach((head, i) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") !== "descending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      rows.sort((p, q) => {
        const [a, b] = [value(p, i), value(q, i)];
        if (missing(a) || missing(b)) return missing(a) - missing(b);
        return down ? order(b, a) : order(a, b);
      });
      body.append(...rows);
    });
  });
  if (!table.classList.contains("filtered")) continue;
  const bar = document.createElement("p"), count = document.createElement("span");
  const search = document.createElement("input");
  bar.className = "filter";
  search.type = "search";
  search.placeholder = "filter by words";
  search.setAttribute("aria-label", "filter by words");
  const choices = heads.flatMap((head, i) => "choose" in head.dataset ? [[i, document.createElement("select")]] : []);
  for (const [i, select] of choices) {
    select.setAttribute("aria-label", heads[i].textContent);
    select.add(new Option("every " + heads[i].textContent, ""));
    for (const name of new Set(rows.map((row) => value(row, i)))) select.add(new Option(name, name));
  }
  const filter = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !(words.every((word) => text.includes(word)) &&
        choices.every(([i, select]) => select.value === "" || value(row, i) === select.value));
      shown += !row.hidden;
    }
    count.textContent = shown + " of " + rows.length;
  };
  bar.append(search, ...choices.map(([, select]) => select), count);
  table.parentElement.before(bar);
  bar.addEventListener("input", filter);
  filter();
}
