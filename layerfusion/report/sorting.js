// Sorts a table by a column: a click or the keyboard goes from ascending to descending to the
// order of the page. Without JavaScript the tables stand as they are.
(() => {
  const units = { ms: 0.001, s: 1, min: 60, h: 3600 };
  const value = (cell) => {
    const text = cell.textContent.replace(/\u2212/g, "-").replace(/,(?=\d{3})/g, "");
    const found = text.match(/([-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?)\s*(ms\b|s\b|min\b|h\b)?/i);
    return found ? parseFloat(found[1]) * (units[found[2]] ?? 1) : NaN;
  };
  const words = new Intl.Collator(undefined, { numeric: true });
  for (const table of document.querySelectorAll("table")) {
    const body = table.tBodies[0], rows = [...body.rows], heads = [...table.tHead.rows[0].cells];
    if (rows.length < 2) continue;
    heads.forEach((head, column) => {
      const numeric = head.classList.contains("number");
      const compare = (a, b, sign) => {
        const [x, y] = [a.cells[column], b.cells[column]];
        if (!numeric) return sign * words.compare(x.textContent, y.textContent);
        const [m, n] = [value(x), value(y)];
        // What has no number stays last in both directions.
        if (isNaN(m) || isNaN(n)) return isNaN(m) - isNaN(n);
        return sign * (m - n);
      };
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const next = { ascending: "descending", descending: "" }[head.ariaSort] ?? "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        if (next) head.ariaSort = next;
        const sign = next === "descending" ? -1 : 1;
        body.append(...(next ? rows.toSorted((a, b) => compare(a, b, sign)) : rows));
      });
    });
  }
  // Paper shows what is folded on the screen.
  const folded = () => document.querySelectorAll("details:not([open])");
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...folded()];
    opened.forEach((one) => { one.open = true; });
  });
  addEventListener("afterprint", () => opened.forEach((one) => { one.open = false; }));
})();
