// Sorts a table by a column: a click or the keyboard goes from ascending to descending to the
// order of the page. Without JavaScript the tables stand as they are.
(() => {
  const words = new Intl.Collator(undefined, { numeric: true });
  for (const table of document.querySelectorAll("table")) {
    const body = table.tBodies[0], rows = [...body.rows], heads = [...table.tHead.rows[0].cells];
    if (rows.length < 2) continue;
    heads.forEach((head, column) => {
      // Cells that hold numbers say them; a column without any sorts as text.
      const number = (row) => parseFloat(row.cells[column].dataset.order);
      const numeric = rows.some((row) => !isNaN(number(row)));
      const compare = (a, b, sign) => {
        const [x, y] = [a.cells[column].textContent, b.cells[column].textContent];
        if (!numeric) return sign * words.compare(x, y);
        const [m, n] = [number(a), number(b)];
        // Rows without a number stay last in both directions.
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
})();
